import spaces
from search.preflight import impossible

SHRINKING = """
from torch import nn

def build(image_shape, classes, *, kernel):
    return nn.Sequential(nn.Conv2d(image_shape[0], 4, kernel), nn.Flatten(), nn.LazyLinear(classes))
"""
WRONG = """
from torch import nn

def build(image_shape, classes, *, kernel):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], classes + 1))
"""


def config(**knobs: object) -> dict[str, object]:
    return spaces.TRAINING_BASELINE | knobs


def test_a_possible_configuration_has_nothing_against_it() -> None:
    assert impossible("cnn", spaces.load("cnn").baseline, (3, 32, 32), 10) is None


def test_a_kernel_larger_than_the_image_is_said_in_torchs_words() -> None:
    why = impossible("mine", config(kernel=40), (3, 32, 32), 10, SHRINKING)
    assert why is not None
    assert why.startswith("RuntimeError: ")
    assert "ernel size" in why


def test_an_output_of_the_wrong_shape_is_found() -> None:
    why = impossible("mine", config(kernel=3), (1, 28, 28), 4, WRONG)
    assert why == "the model gives an output of shape (2, 5) for 2 images and 4 classes"
