import json
import random
import subprocess
import sys

import pytest

import spaces
from foundation import RequestError
from spaces import Choice, Integer, Knob, Space, Uniform, When

TRANSFER = ("efficientnet_b0", "mobilenet_v2", "resnet50")


def toy(**changes):
    fields = {
        "architecture": "toy",
        "knobs": {
            "optimizer": Knob(Choice(("adam", "sgd"))),
            "momentum": Knob(When(Uniform(0.5, 0.9), "optimizer", ("sgd",))),
            "width": Knob(Integer(8, 32, step=8), "filters", "small"),
        },
        "baseline": {"optimizer": "adam", "width": 16},
    }
    return Space(**fields | changes)


def test_the_built_in_architectures():
    assert spaces.names() == ("alexnet", "cnn", "efficientnet_b0", "mobilenet_v2", "resnet50", "vgg11")


@pytest.mark.parametrize("name", spaces.names())
def test_every_draw_is_without_mistakes(name):
    space = spaces.load(name)
    rng = random.Random(0)
    for _ in range(100):
        config = space.draw(rng)
        assert space.mistakes(config) == []
        assert ("momentum" in config) == (config["optimizer"] in ("sgd", "rmsprop"))
        assert list(config) == [knob for knob in space.knobs if knob in config]


@pytest.mark.parametrize("name", spaces.names())
def test_rows_are_json_and_come_back(name):
    space = spaces.load(name)
    assert Space.from_rows(json.loads(json.dumps(space.rows()))) == space


@pytest.mark.parametrize("name", spaces.names())
def test_every_knob_is_described(name):
    for row in spaces.describe(spaces.load(name)):
        assert set(row) == {"knob", "range", "unit", "baseline", "why"}
        assert row["range"]
        assert row["why"]


@pytest.mark.parametrize("name", spaces.names())
def test_every_range_is_within_what_a_user_may_set(name):
    rng = random.Random(0)
    space = spaces.load(name)
    for _ in range(20):
        for knob, value in space.draw(rng).items():
            assert space.knobs[knob].allowed.read(value) == value


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_conditions(name):
    space = spaces.load(name)
    rng = random.Random(0)
    drawn = [space.draw(rng) for _ in range(200)]
    assert all(("frozen_epochs" in config) == (config["trainable_layers"] != 0) for config in drawn)
    assert all(("activation" in config) == (config["dense_units"] != 0) for config in drawn)
    assert {config["trainable_layers"] for config in drawn} == {0, 20, 40, "all"}


def test_mistakes_are_all_named():
    assert toy().mistakes({"optimizer": "adam", "momentum": 0.7, "widht": 8}) == [
        "knob 'widht' is not known: did you mean 'width'? allowed are momentum, optimizer, width",
        "momentum = 0.7 has no effect here: allowed are 0.5 .. 0.9, if optimizer is sgd",
        "width has no value: allowed are 8 .. 32 (step 8)",
    ]
    assert toy().mistakes({"optimizer": "sgd", "width": 9}) == [
        "momentum has no value: allowed are 0.5 .. 0.9, if optimizer is sgd",
        "width = 9 is out of range: allowed are 8 .. 32 (step 8)",
    ]


def test_a_baseline_outside_is_refused():
    with pytest.raises(ValueError, match="baseline of toy is outside its space: width = 9 is out of range"):
        toy(baseline={"optimizer": "adam", "width": 9})


def test_a_knob_before_the_one_it_depends_on_is_refused():
    knobs = toy().knobs
    with pytest.raises(ValueError, match="momentum depends on optimizer, which is not a knob before it"):
        toy(knobs={"momentum": knobs["momentum"], "optimizer": knobs["optimizer"], "width": knobs["width"]})


def test_rows_of_two_architectures_are_refused():
    with pytest.raises(ValueError, match=r"rows of one architecture are needed, not of \['cnn', 'toy'\]"):
        Space.from_rows(toy().rows() + spaces.load("cnn").rows())


def test_an_unknown_architecture_gets_the_closest():
    with pytest.raises(RequestError) as error:
        spaces.load("alexnt")
    assert str(error.value) == (
        "architecture 'alexnt' is not known: did you mean 'alexnet'? allowed are alexnet, cnn, efficientnet_b0, "
        "mobilenet_v2, resnet50, vgg11, or the path of a .py file of your own"
    )


def test_the_room_imports_nothing_heavy():
    code = (
        "import sys, spaces; [spaces.load(name) for name in spaces.names()]; "
        "print([name for name in ('ray', 'torch', 'numpy', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", TRANSFER)
def test_from_scratch_every_layer_of_a_transfer_model_trains(name):
    space = spaces.narrowed(spaces.load(name), {"weights": "none"}, "--weights")
    drawn = [space.draw(random.Random(seed)) for seed in range(20)]
    assert not any({"trainable_layers", "frozen_epochs"} & set(config) for config in [space.baseline, *drawn])
