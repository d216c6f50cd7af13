"""Experiments ready to launch; each file tells its question, cost and result."""
