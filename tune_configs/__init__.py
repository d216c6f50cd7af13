"""Experiments ready to launch. Each file states its question, command, cost, expected and seen results."""
