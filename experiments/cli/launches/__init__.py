"""Commands that run searches and trainings."""
