"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012), for images of 28 to 224 pixels."""

import math
from functools import partial

from torch import nn

from trainables.models._layers import classifier_net, conv_block, pooled_block


def build(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    conv1_filters: int,
    conv1_kernel: int,
    conv2_filters: int,
    conv2_kernel: int,
    conv3_filters: int,
    conv3_kernel: int,
    conv4_filters: int,
    conv5_filters: int,
    dense_units: int,
    dropout: float,
    activation: str,
    batch_norm: bool,
) -> nn.Module:
    """Return the five convolutions, three poolings and three dense layers of the paper, with chosen widths.

    The first convolution has the paper's stride of 4 from 160 pixels on, 2 from 64, and 1 below, so that small images
    keep their detail. Local response normalisation is left out; batch norm stands in for it.
    """
    channels, height, width = image_shape
    side = max(height, width)
    stride = 4 if side >= 160 else 2 if side >= 64 else 1
    block = partial(conv_block, activation=activation, batch_norm=batch_norm)
    pooled = partial(pooled_block, activation=activation, batch_norm=batch_norm)
    pool = partial(nn.MaxPool2d, 3, stride=2, padding=1)
    features = nn.Sequential(
        *pooled(channels, conv1_filters, conv1_kernel, pool(), stride=stride),
        *pooled(conv1_filters, conv2_filters, conv2_kernel, pool()),
        block(conv2_filters, conv3_filters, conv3_kernel),
        block(conv3_filters, conv4_filters, 3),
        *pooled(conv4_filters, conv5_filters, 3, pool()),
    )
    reduction = stride * 8
    return classifier_net(
        features,
        (conv5_filters, math.ceil(height / reduction), math.ceil(width / reduction)),
        classes,
        dense_units=dense_units,
        dense_layers=2,
        dropout=dropout,
        activation=activation,
    )
