"""One search or training: its identity, folder, journal and Ray trial."""
