"""Commands that help to write a YAML file."""
