"""One whole search: epochs, records, checkpoints."""
