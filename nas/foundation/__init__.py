"""What everything stands on: errors, files, validation, registries, devices, checkpoints, identities."""
