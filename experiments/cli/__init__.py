"""The `tfnas` command: rooms of subcommands, one module per subcommand."""
