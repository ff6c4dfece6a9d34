"""An architecture of your own in one file: `convscout search digits --arch examples/tiny_net.py`.

SPACE says what may vary, BASELINE what one would run by hand, and `build` makes the model. Every keyword-only argument
of `build` is a hyperparameter; training knobs such as the learning rate are there anyway.
"""

from torch import nn

from spaces import Between, Choice, Integer, Knob

SPACE = {
    "width": Knob(Choice((8, 16, 32)), "filters", "a tiny net needs few", Between(1, 512, whole=True)),
    "stages": Knob(Integer(1, 3), "halvings", "28 pixels bear three", Between(1, 4, whole=True)),
}
BASELINE = {"width": 16, "stages": 2, "learning_rate": 3e-3}


def build(image_shape: tuple[int, int, int], classes: int, *, width: int, stages: int) -> nn.Module:
    """Return convolutions that each halve the image, then the mean over what is left of it."""
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for _ in range(stages):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
