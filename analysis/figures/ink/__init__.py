"""What figures share: drawings, styles, panels, files."""
