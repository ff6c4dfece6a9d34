"""What every architecture must keep, whoever wrote it."""

import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import spaces
from trainables import models

NAMES = models.names()
TRANSFER = [name for name in NAMES if "weights" in spaces.load(name).knobs]


def own_knobs(name, config):
    return {knob: config[knob] for knob in models.knobs(models.load(name)) if knob in config}


def built(name, *, channels=3, side=32, config=None, seed=0, **changes):
    torch.manual_seed(seed)
    knobs = own_knobs(name, config or spaces.load(name).baseline)
    knobs |= {"input_size": 32} if name in TRANSFER and config is None else {}
    return models.build_classifier(
        name, (channels, side, side), 7, knobs | changes, mean=[120.0] * channels, deviation=[60.0] * channels,
        weights=False,
    )  # fmt: skip


def images(count, channels=3, side=32):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 255


def test_spaces_and_models_are_the_same_architectures():
    assert spaces.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_knob_of_the_space_is_consumed_and_none_else(name):
    own = set(spaces.load(name).knobs) - set(spaces.TRAINING)
    assert set(models.knobs(models.load(name))) == own


@pytest.mark.parametrize("name", NAMES)
def test_the_baseline_is_inside_the_space(name):
    space = spaces.load(name)
    assert space.mistakes(space.baseline) == []


@pytest.mark.parametrize("side", [28, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_the_right_shape(name, channels, side):
    model = built(name, channels=channels, side=side).eval()
    with torch.no_grad():
        logits = model(images(2, channels, side))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_random_configurations_build_and_run_on_meta(name):
    space, rng = spaces.load(name), random.Random(0)
    for _ in range(30):
        config = space.draw(rng)
        channels, side = rng.choice((1, 3)), rng.choice((28, 32, 33, 64, 97, 160, 224))
        with torch.device("meta"):
            model = built(name, channels=channels, side=side, config=config)
        logits = model(torch.empty(2, channels, side, side, device="meta"))
        assert logits.is_meta
        assert logits.shape == (2, 7)
        assert models.count_parameters(model) > 0


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_in_every_trainable_parameter(name, activation):
    if name in TRANSFER and activation != "silu":
        pytest.skip("the activation is only that of the head: one is enough")
    # Without dropout, so that no small layer is switched off by chance.
    model = built(name, activation=activation, dropout=0.0)
    model.begin_epoch(10)
    F.cross_entropy(model(images(8)), torch.arange(8) % 7).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None, key


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_in_every_parameter_with_everything_trainable(name):
    changes = {"trainable_layers": "all", "frozen_epochs": 0} if name in TRANSFER else {}
    model = built(name, dropout=0.0, **changes)
    F.cross_entropy(model(images(8)), torch.arange(8) % 7).backward()
    without = [key for key, each in model.named_parameters() if each.grad is None or not each.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", NAMES)
def test_the_first_loss_is_that_of_equal_probabilities(name):
    if name in TRANSFER:
        pytest.skip("features of random backbones are of no known size")
    loss = F.cross_entropy(built(name)(images(16)), torch.arange(16) % 7)
    assert loss.item() == pytest.approx(1.946, abs=0.3)  # ln 7


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_gives_equal_logits(name, tmp_path):
    model = built(name)
    model(images(4))  # batch norms move
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = built(name, seed=5)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(model.eval()(images(4)), other.eval()(images(4)))


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_model(name):
    one, same, other = built(name).state_dict(), built(name).state_dict(), built(name, seed=1).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
