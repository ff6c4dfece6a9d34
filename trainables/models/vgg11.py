"""VGG11 (Simonyan and Zisserman, 2015, configuration A), for images of 28 to 224 pixels."""

import math
from functools import partial

from torch import nn

from trainables.models._layers import classifier_net, conv_block, halving_pool, pooled_block

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
    block = partial(conv_block, activation=activation, batch_norm=batch_norm)
    pooled = partial(pooled_block, activation=activation, batch_norm=batch_norm)
    for *others, last in _STAGES:
        for multiple in others:
            layers.append(block(inputs, base_width * multiple, 3))
            inputs = base_width * multiple
        layers += pooled(inputs, base_width * last, 3, halving_pool(), stride=stride)
        inputs, stride = base_width * last, 1
    return classifier_net(
        nn.Sequential(*layers),
        (inputs, math.ceil(height / reduction), math.ceil(width / reduction)),
        classes,
        dense_units=dense_units,
        dense_layers=2,
        dropout=dropout,
        activation=activation,
    )
