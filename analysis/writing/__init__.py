"""What figures and tables are written with: LaTeX, and stamps that name the runs."""
