"""Mixed blocks as compiled CPU loops, for float32; imported only by choice, see `nas.supernet.kernels`."""
