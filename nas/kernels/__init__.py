"""The supernet's arithmetic on channels-last features, with a gradient of our own where it pays.

On the CPU in float32, what torch does slowly there is compiled (numba): the weight gradient of
depthwise convolutions, and batch norm fused with what follows it. Anywhere else, the same
functions are made of torch's own.
"""

from nas.kernels.convolution import depthwise_conv, pointwise_conv
from nas.kernels.normalization import batch_norm_activation, mix_normalized

__all__ = ["batch_norm_activation", "depthwise_conv", "mix_normalized", "pointwise_conv"]
