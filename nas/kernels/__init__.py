"""The supernet's arithmetic on channels-last features.

`mixed_block` is a layer of the supernet. Anywhere it is made of torch's own functions; on the CPU
in float32, where torch's BLAS can be called, it is an autograd function of our own around compiled
loops, which keeps less memory and is faster.
"""

from nas.kernels.mbconv import MBConvShape, MBConvWeights
from nas.kernels.mixed_block import mixed_block

__all__ = ["MBConvShape", "MBConvWeights", "mixed_block"]
