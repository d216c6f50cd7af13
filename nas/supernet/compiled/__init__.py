"""Mixed blocks as compiled CPU loops, for float32. Imported only where a search chooses them: `nas.supernet.kernels`."""
