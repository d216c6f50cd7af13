"""YAML files to start from: a question, images, and a protocol that fits both and a budget."""
