"""Numbers of runs, one question each."""
