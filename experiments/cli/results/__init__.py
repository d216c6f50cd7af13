"""Commands that read what launches found."""
