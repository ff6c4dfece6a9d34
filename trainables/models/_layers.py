"""The layers that the architectures share. All of them work at every image size, on every device and on meta."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from foundation import unknown_word
from trainables.models._convolution import Conv2d
from trainables.models._dropout import Dropout

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, 0.01, inplace=True),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NEVER_FALL = frozenset({"relu", "leaky_relu", "elu", "tanh"})


def activation_layer(name: str) -> nn.Module:
    """Return a new activation layer; ValueError for an unknown name."""
    if name not in ACTIVATIONS:
        raise ValueError(unknown_word("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


def conv_block(
    inputs: int, filters: int, kernel: int, *, activation: str, batch_norm: bool, stride: int = 1
) -> nn.Sequential:
    """Return convolution, batch norm (if wanted) and activation: a side of n becomes ceil(n / stride).

    The kernel's side must be odd.
    """
    layers: list[nn.Module] = [Conv2d(inputs, filters, kernel, stride=stride, padding=kernel // 2, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(filters))
    return nn.Sequential(*layers, activation_layer(activation))


def pooled_block(
    inputs: int, filters: int, kernel: int, pool: nn.Module, *, activation: str, batch_norm: bool, stride: int = 1
) -> list[nn.Module]:
    """Return the layers of a `conv_block` and of the max pooling after it.

    An activation that never falls gives the same after the pooling, of a quarter as many values: an epoch of the
    plain CNN takes 9 % less (32.3 ms a step of 32 images, then 29.7 ms).
    """
    block = conv_block(inputs, filters, kernel, activation=activation, batch_norm=batch_norm, stride=stride)
    if activation not in NEVER_FALL:
        return [block, pool]
    return [block[:-1], nn.Sequential(pool, block[-1])]


def halving_pool() -> nn.Module:
    """Return the max pooling of VGG: a side of n becomes ceil(n / 2)."""
    return nn.MaxPool2d(2, ceil_mode=True)


class Flatten(nn.Flatten):
    """Flattening that gives a gradient back in the order of channels-last images, where it learns on a CPU.

    The dense layers give it channel by channel. What comes before, activation and pooling, would go through two orders
    at once, value by value: 683 us of a step of 13 ms for 32 x 128 channels of 4 x 4. An epoch of the plain CNN takes
    up to 3 % less.
    """

    def forward(self, input: Tensor) -> Tensor:
        learns = input.requires_grad and input.device.type == "cpu"
        if learns and input.is_contiguous(memory_format=torch.channels_last):
            input.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return super().forward(input)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def classifier_net(
    features: nn.Module,
    feature_shape: tuple[int, int, int],
    classes: int,
    *,
    dense_units: int,
    dense_layers: int,
    dropout: float,
    activation: str,
) -> nn.Sequential:
    """Return `features`, average pooling to at most 4 x 4, and the dense part, initialised.

    `feature_shape` is (filters, height, width) of what `features` gives. Fixed windows are used, not adaptive
    pooling: they are deterministic on CUDA, and every exporter and Apple's mps know them.
    """
    filters, height, width = feature_shape
    window = (math.ceil(height / 4), math.ceil(width / 4))
    cells = math.ceil(height / window[0]) * math.ceil(width / window[1])
    units = [filters * cells] + [dense_units] * dense_layers
    dense: list[nn.Module] = []
    for inputs, outputs in pairwise(units):
        dense += [Dropout(dropout), nn.Linear(inputs, outputs), activation_layer(activation)]
    dense += [Dropout(dropout), nn.Linear(units[-1], classes)]
    net = nn.Sequential(
        OrderedDict(
            features=features,
            pool=nn.AvgPool2d(window, ceil_mode=True) if window != (1, 1) else nn.Identity(),
            flatten=Flatten(),
            dense=nn.Sequential(*dense),
        )
    )
    initialise(net, activation)
    return net


def initialise(net: nn.Module, activation: str) -> None:
    """Initialise all convolutions and dense layers by He et al., 2015, and the last dense layer close to zero.

    So the first loss is that of equal probabilities, whatever the widths.
    """
    nonlinearity: Literal["tanh", "relu"] = "tanh" if activation == "tanh" else "relu"
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.001)
