"""What everything stands on: errors, files, validation, devices, checkpoints, identities."""
