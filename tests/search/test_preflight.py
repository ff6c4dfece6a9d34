import gc
import random
from contextlib import nullcontext

import pytest
import torch

import spaces
from search.preflight import preflight

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
    assert preflight("cnn", spaces.load("cnn").baseline, (3, 32, 32), 10).impossible is None


def test_a_kernel_larger_than_the_image_is_said_in_torchs_words() -> None:
    why = preflight("mine", config(kernel=40), (3, 32, 32), 10, SHRINKING).impossible
    assert why is not None
    assert why.startswith("RuntimeError: ")
    assert "ernel size" in why


def test_an_output_of_the_wrong_shape_is_found() -> None:
    why = preflight("mine", config(kernel=3), (1, 28, 28), 4, WRONG).impossible
    assert why == "the model gives an output of shape (2, 5) for 2 images and 4 classes"


FAILING = """
def build(image_shape, classes, *, kernel):
    from torch import nn

    class Net(nn.Module):
        def forward(self, images):
            return {forward}

    return {build}
"""


@pytest.mark.parametrize(
    ("forward", "build", "why"),
    [
        ("None", "kernel + 'x'", "mine.py line 9: TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
        ("None", "Nett()", "mine.py line 9: NameError: name 'Nett' is not defined"),
        ("images.view(7, 7)", "Net()", "mine.py line 7: RuntimeError: shape '[7, 7]' is invalid for input of size 24"),
        ("None", "Net()", "the model gives NoneType, a tensor of logits is needed"),
        ("None", "None", "build returned NoneType, a torch.nn.Module is needed"),
        ("None", "len", "build returned builtin_function_or_method, a torch.nn.Module is needed"),
    ],
)
def test_a_mistake_in_a_users_own_file_is_named(forward: str, build: str, why: str) -> None:
    found = preflight("mine", config(kernel=3), (3, 2, 2), 4, FAILING.format(forward=forward, build=build)).impossible
    assert found is not None
    assert found.startswith(why)


def without_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.shapes.Shortcuts", nullcontext)


@pytest.mark.parametrize("architecture", ["cnn", "alexnet", "vgg11", "mobilenet_v2"])
def test_following_only_shapes_finds_what_torch_finds(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space, rng = spaces.load(architecture), random.Random(3)
    configs = [space.draw(rng) for _ in range(9 if architecture == "cnn" else 4)]
    shapes = [(3, 32, 32), (1, 9, 9)]
    found = [preflight(architecture, each, shape, 7) for each in configs for shape in shapes]
    without_shortcuts(monkeypatch)
    assert found == [preflight(architecture, each, shape, 7) for each in configs for shape in shapes]


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ("nn.BatchNorm2d(5)", "RuntimeError: "),
        ("nn.BatchNorm1d(3)", "ValueError: expected 2D or 3D input (got 4D input)"),
        ("nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3, affine=False))", None),
        (
            "nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, -1)), nn.BatchNorm1d(6144))",
            "ValueError: Expected more than 1",
        ),
        ("nn.Linear(31, 4)", "RuntimeError: "),
        ("nn.Conv2d(4, 8, 3)", "RuntimeError: "),
        ("nn.Conv2d(3, 8, 35, padding=1)", "RuntimeError: "),
        ("nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1), groups=3)", None),
        ("nn.Conv2d(3, 8, 3, padding='same')", None),
        ("nn.Conv2d(3, 8, 3, bias=False, padding_mode='circular', padding=1)", None),
    ],
)
def test_layers_that_do_not_fit_are_refused_in_torchs_words(
    layer: str, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = f"nn.Sequential({layer}, nn.Flatten(), nn.LazyLinear(classes))"
    source = f"from torch import nn\n\ndef build(image_shape, classes):\n    return {net}\n"
    found = preflight("mine", config(), (3, 32, 32), 10, source).impossible
    without_shortcuts(monkeypatch)
    assert found == preflight("mine", config(), (3, 32, 32), 10, source).impossible
    assert found is None if why is None else str(found).startswith(why)


def test_what_the_way_back_needs_is_counted_and_grows_with_the_image() -> None:
    config = spaces.load("cnn").baseline
    small, large = (preflight("cnn", config, (3, side, side), 10) for side in (32, 64))
    assert 3.5 < large.kept_bytes / small.kept_bytes < 4.5
    assert large.largest_bytes == config["filters"] * 64 * 64 * 4  # the first convolution's, in float32
    parameters = (small.state_bytes - 200_000) / 12
    assert small.kept_bytes < 4 * parameters  # which are not counted


def test_nothing_of_a_model_that_was_looked_at_stays_in_memory() -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    preflight("cnn", spaces.load("cnn").baseline, (3, 32, 32), 10)
    before = tensors()
    assert preflight("cnn", spaces.load("cnn").baseline, (3, 32, 32), 10).kept_bytes > 0
    assert preflight("vgg11", spaces.load("vgg11").baseline, (3, 32, 32), 10).kept_bytes > 0
    assert tensors() == before
