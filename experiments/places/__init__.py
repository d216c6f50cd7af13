"""Where trials run and put their files: this machine, a cluster, storage."""
