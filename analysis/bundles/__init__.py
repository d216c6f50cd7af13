"""Bundles: an experiment in one file, read without MLflow, and verified."""
