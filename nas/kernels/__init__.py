"""The supernet's arithmetic on channels-last features.

`mbconv` is a candidate operator up to its last batch norm, `mix_normalized` the weighted sum of
normalised candidates. Anywhere they are made of torch's own functions; on the CPU in float32 they
are autograd functions of our own around compiled loops, which keep less memory and are faster.
"""

from nas.kernels.mbconv import MBConvWeights, mbconv
from nas.kernels.mixture import mix_normalized

__all__ = ["MBConvWeights", "mbconv", "mix_normalized"]
