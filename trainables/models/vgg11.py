"""VGG11 (Simonyan and Zisserman, 2015, configuration A), for images of 28 to 224 pixels."""

import math

from torch import nn

from trainables.models._layers import classifier_net, conv_block, halving_pool

# The widths of the paper as multiples of the first one; each row ends in a pooling.
_STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))


def build(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    base_width: int,
    dense_units: int,
    dropout: float,
    activation: str,
    batch_norm: bool,
) -> nn.Module:
    """Return the eight 3 x 3 convolutions, five poolings and three dense layers of the paper, with chosen widths.

    The first convolution has stride 2 from 128 pixels on, which makes it four times as fast there; below it is the
    paper's 1.
    """
    inputs, height, width = image_shape
    stride = 2 if max(height, width) >= 128 else 1
    reduction = stride * 2 ** len(_STAGES)
    layers: list[nn.Module] = []
    for stage in _STAGES:
        for multiple in stage:
            filters = base_width * multiple
            layers.append(conv_block(inputs, filters, 3, activation=activation, batch_norm=batch_norm, stride=stride))
            inputs, stride = filters, 1
        layers.append(halving_pool())
    return classifier_net(
        nn.Sequential(*layers),
        (inputs, math.ceil(height / reduction), math.ceil(width / reduction)),
        classes,
        dense_units=dense_units,
        dense_layers=2,
        dropout=dropout,
        activation=activation,
    )
