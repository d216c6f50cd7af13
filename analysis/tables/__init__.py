"""Tables: rows first, then LaTeX, Markdown and CSV."""
