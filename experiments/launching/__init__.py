"""Launching a grid: what runs, in which order, with what progress and cost."""
