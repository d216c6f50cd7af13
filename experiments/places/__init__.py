"""Where trials run and keep their files: this machine, a cluster, storage."""
