"""What an epoch computes: all of a model, or what is left of it where frozen layers have computed before."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import spaces
from search.flops import Flops, flops
from trainables.models import build_classifier
from trainables.recipe import split

SHAPE, CLASSES = (3, 32, 32), 2
PLAIN = dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "cutout"), 0.0)


def config(**changes: Any) -> dict[str, Any]:
    small = {"weights": "none", "input_size": 64, "dense_units": 8, "batch_norm": False, "augmented_views": 0}
    return spaces.load("mobilenet_v2").baseline | PLAIN | small | changes


def of(epochs: int, **changes: Any) -> Flops:
    return flops("mobilenet_v2", config(**changes), SHAPE, CLASSES, None, epochs)


def whole(**changes: Any) -> int:
    return of(4, **changes).whole


def of_epochs(epochs: int = 4, **changes: Any) -> int:
    return of(epochs, **changes).epoch


def test_a_network_without_frozen_layers_computes_all_of_it() -> None:
    baseline = spaces.load("cnn").baseline
    found = flops("cnn", baseline, SHAPE, CLASSES, None, 9)
    assert found.epoch == found.whole
    assert of_epochs(trainable_layers="all", frozen_epochs=0) == whole()


@pytest.mark.parametrize("architecture", ["cnn", "alexnet", "vgg11", "mobilenet_v2", "resnet50"])
def test_they_are_those_that_torch_counts(architecture: str) -> None:
    baseline = spaces.load(architecture).baseline
    baseline = dict(baseline) | ({"weights": "none"} if "weights" in baseline else {})
    model = build_classifier(architecture, SHAPE, CLASSES, split(baseline)[1], mean=(0.0,) * 3, deviation=(1.0,) * 3)
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *SHAPE))
    assert flops(architecture, baseline, SHAPE, CLASSES, None, 2).whole == counter.get_total_flops()


def test_what_no_layer_computes_counts_as_well() -> None:
    source = (
        "import torch\nfrom torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.last = nn.Linear(1024, classes)\n"
        "    def forward(self, images):\n"
        "        grey = images.mean(1)\n"
        "        return self.last(weight_of(grey @ grey))\n\n"
        "def weight_of(grey):\n"
        "    return grey.flatten(1)\n\n"
        "def build(image_shape, classes):\n"
        "    return Net(classes)\n"
    )
    found = flops("mine", spaces.TRAINING_BASELINE, SHAPE, CLASSES, source, 2)
    assert found.whole == 2 * (32**3 + 1024 * CLASSES)


def test_of_a_frozen_backbone_only_the_head_is_computed() -> None:
    assert of_epochs(trainable_layers=0) == 2 * (1280 * 8 + 8 * CLASSES)


def test_augmentation_that_is_drawn_anew_has_it_computed_each_time() -> None:
    assert of_epochs(trainable_layers=0, flip=0.5) == whole()
    assert of_epochs(trainable_layers=0, flip=0.5, augmented_views=4) < whole() / 100


@pytest.mark.parametrize(("epochs", "thawed"), [(1, 0.0), (2, 0.0), (3, 1 / 3), (8, 6 / 8)])
def test_where_layers_thaw_it_is_the_mean_over_the_epochs(epochs: int, thawed: float) -> None:
    head, last = of_epochs(trainable_layers=0), of_epochs(trainable_layers=20, frozen_epochs=0)
    assert head < last < whole()
    found = of_epochs(epochs, trainable_layers=20, frozen_epochs=2)
    assert found == pytest.approx(head + thawed * (last - head), abs=1)
