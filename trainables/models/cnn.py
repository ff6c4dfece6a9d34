"""A plain convolutional network of searched depth, for images of 28 to 224 pixels."""

import math

from torch import nn

from trainables.models._layers import classifier_net, conv_block, halving_pool, pooled_block


def build(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    depth: int,
    filters: int,
    kernel: int,
    dense_layers: int,
    dense_units: int,
    dropout: float,
    activation: str,
    batch_norm: bool,
) -> nn.Module:
    """Return `depth` convolutions and `dense_layers` dense layers before the logits.

    Each convolution is followed by a pooling while a side is above 4 pixels, and has twice the filters of the one
    before, up to eight times the first.
    """
    inputs, height, width = image_shape
    layers: list[nn.Module] = []
    for index in range(depth):
        outputs = filters * min(2**index, 8)
        if max(height, width) > 4:
            layers += pooled_block(
                inputs, outputs, kernel, halving_pool(), activation=activation, batch_norm=batch_norm
            )
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        else:
            layers.append(conv_block(inputs, outputs, kernel, activation=activation, batch_norm=batch_norm))
        inputs = outputs
    return classifier_net(
        nn.Sequential(*layers),
        (inputs, height, width),
        classes,
        dense_units=dense_units,
        dense_layers=dense_layers,
        dropout=dropout,
        activation=activation,
    )
