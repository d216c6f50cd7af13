"""The mixed block as compiled CPU loops; imported only when it is chosen."""
