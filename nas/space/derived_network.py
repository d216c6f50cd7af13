"""Derived networks: what an architecture record builds.

Source: TF-NAS, search space (macro architecture) and derivation.
"""

from torch import Tensor, nn

from nas.space.architecture import Architecture
from nas.space.blocks import MBConv, conv_bn, mean_over_pixels
from nas.space.initial_weights import draw_all_weights
from nas.space.macro_space import Space, get_space


def make_stem_block(space: Space, *, drop_connect: float = 0.0, affine: bool = True) -> MBConv:
    """The fixed block after the stem convolution; the other arguments are those of `MBConv`."""
    return MBConv(
        space.stem_channels,
        space.stem_channels,
        space.stem_block_channels,
        kernel_size=3,
        stride=1,
        activation="relu",
        se_channels=space.stem_se_channels,
        has_expansion=False,
        drop_connect=drop_connect,
        affine=affine,
    )


class DerivedNetwork(nn.Module):
    """The network of an architecture, with ordinary batch norm, to be trained from scratch.

    Its weights are drawn from PyTorch's global generator; see `nas.space.initial_weights`.

    Args:
        architecture: operators and widths of the kept layers.
        num_classes: outputs of the classifier.
        dropout: probability before the classifier.
        drop_connect: probability of the last layer's drop-connect; linear in depth before it, where the
            stem block counts as the first layer.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int,
        *,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__()
        space = get_space(architecture.space)
        self.stem = conv_bn(3, space.stem_channels, 3, stride=space.stem_stride, activation="relu")
        num_blocks = architecture.depth + 1
        self.stem_block = make_stem_block(space, drop_connect=drop_connect / num_blocks)
        self.blocks = nn.Sequential(
            *(
                MBConv(
                    layer.in_channels,
                    mid_channels,
                    layer.out_channels,
                    kernel_size=op.kernel_size,
                    stride=layer.stride,
                    activation=layer.activation,
                    se_channels=op.se_channels(layer.in_channels),
                    drop_connect=drop_connect * position / num_blocks,
                )
                for position, (layer, op, mid_channels) in enumerate(architecture.layers, start=2)
            )
        )
        last_channels = space.stages[-1].out_channels
        self.head = conv_bn(last_channels, space.head_channels, 1, activation=space.head_activation)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(space.head_channels, num_classes)
        draw_all_weights(self)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Returns logits_BK, one row per image."""
        return self.classify(self.blocks(self.features(images_BCHW)))

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Features before the first searchable layer."""
        features_BCHW: Tensor = self.stem_block(self.stem(images_BCHW))
        return features_BCHW

    def classify(self, features_BCHW: Tensor) -> Tensor:
        """Logits_BK of the features behind the last searchable layer."""
        logits_BK: Tensor = self.classifier(self.dropout(mean_over_pixels(self.head(features_BCHW))))
        return logits_BK
