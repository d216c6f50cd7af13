"""The basis of all other rooms: errors, files, validation, registries, devices, checkpoints, identities."""
