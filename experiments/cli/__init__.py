"""The `tfnas` command, one module per subcommand."""
