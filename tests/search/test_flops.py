"""What an epoch computes: all of a model, or what is left of it where frozen layers have computed before."""

from typing import Any

import pytest

import spaces
from search.flops import epoch_flops, forward_flops

SHAPE, CLASSES = (3, 32, 32), 2
PLAIN = dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "cutout"), 0.0)


def config(**changes: Any) -> dict[str, Any]:
    small = {"weights": "none", "input_size": 64, "dense_units": 8, "batch_norm": False, "augmented_views": 0}
    return spaces.load("mobilenet_v2").baseline | PLAIN | small | changes


def whole(**changes: Any) -> int:
    return forward_flops("mobilenet_v2", config(**changes), SHAPE, CLASSES, None)


def of_epochs(epochs: int = 4, **changes: Any) -> int:
    return epoch_flops("mobilenet_v2", config(**changes), SHAPE, CLASSES, None, epochs)


def test_a_network_without_frozen_layers_computes_all_of_it() -> None:
    baseline = spaces.load("cnn").baseline
    assert epoch_flops("cnn", baseline, SHAPE, CLASSES, None, 9) == forward_flops("cnn", baseline, SHAPE, CLASSES, None)
    assert of_epochs(trainable_layers="all", frozen_epochs=0) == whole()


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
