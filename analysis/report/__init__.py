"""The report page, and two runs side by side."""
