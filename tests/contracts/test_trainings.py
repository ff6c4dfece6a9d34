"""What the training of every architecture must keep, to the last bit on a CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import spaces
from trainables import checkpoint, models
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training

NAMES = models.names()
TRANSFER = [name for name in NAMES if "weights" in spaces.load(name).knobs]
EPOCHS = 3
STRONG = {"flip": 0.5, "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "shear": 5.0, "cutout": 0.3}
# Narrow, with batch norm and dropout, since both have a state of their own.
SMALL = {
    "batch_norm": True, "dropout": 0.3, "batch_size": 4, "accumulation_steps": 2,
    "filters": 8, "base_width": 8, "dense_units": 16, "depth": 1,
    "conv1_filters": 8, "conv2_filters": 8, "conv3_filters": 8, "conv4_filters": 8, "conv5_filters": 8,
    "input_size": 32, "trainable_layers": 20, "frozen_epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return Dataset(images, np.arange(16) % 3, np.arange(12), np.arange(12, 16), 3, (128.0,) * 3, (70.0,) * 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return, by architecture, a file of random weights: without any, nothing of a backbone could be frozen."""

    def of(name):
        file = tmp_path_factory.getbasetemp() / f"{name}.safetensors"
        if not file.exists():
            save_file(built(name, "none").state_dict(), file)
        return str(file)

    return of


def built(name, weights):
    knobs = {"weights": weights, "input_size": 32, "dense_units": 0, "dropout": 0.0, "batch_norm": False}
    torch.manual_seed(3)
    return models.load(name)((3, 32, 32), 3, **knobs).backbone


def config(name, weights, **changes):
    space = spaces.load(name)
    small = {knob: value for knob, value in SMALL.items() if knob in space.knobs}
    small |= {"weights": weights(name)} if name in TRANSFER else {}
    return space.baseline | STRONG | small | changes


def timeless(result):
    return replace(result, seconds=0.0, images_per_second=0.0, peak_memory_mb=None)


def trained(training, epochs):
    return [timeless(training.epoch()) for _ in range(epochs)]


def assert_equal(one, other):
    """Compare two models' whole states, bit for bit."""
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize("name", NAMES)
def test_reset_equals_fresh_bit_for_bit(name, data, weights):
    wanted = config(name, weights, optimizer="adam")
    fresh = Training(data, Settings())
    fresh.begin(name, wanted, seed=1, epochs=EPOCHS)
    expected = trained(fresh, EPOCHS)
    used = Training(data, Settings())
    used.begin(name, config(name, weights, optimizer="sgd", schedule="plateau", dropout=0.1), seed=2, epochs=EPOCHS)
    used.epoch()
    torch.rand(1000)
    used.begin(name, wanted, seed=1, epochs=EPOCHS)
    assert trained(used, EPOCHS) == expected
    assert_equal(used.model, fresh.model)


@pytest.mark.parametrize("name", NAMES)
def test_restored_it_goes_on_bit_for_bit(name, data, weights, tmp_path):
    wanted = config(name, weights, optimizer="adamw", schedule="plateau")
    whole, restored = Training(data, Settings()), Training(data, Settings())
    whole.begin(name, wanted, seed=1, epochs=EPOCHS)
    whole.epoch()  # with a frozen backbone, which thaws in the next
    checkpoint.save(tmp_path, 1, 1, whole.state(), name)
    expected = trained(whole, EPOCHS - 1)
    restored.begin(name, wanted, seed=1, epochs=EPOCHS, pretrained=False)
    restored.restore(checkpoint.load(tmp_path, name).state)
    assert trained(restored, EPOCHS - 1) == expected
    assert_equal(restored.model, whole.model)


@pytest.mark.parametrize("name", TRANSFER)
def test_layers_train_only_once_they_have_thawed(name, data, weights):
    training = Training(data, Settings())
    training.begin(name, config(name, weights), seed=1, epochs=EPOCHS)
    given = built(name, weights(name))
    training.epoch()
    assert_equal(training.model.net.backbone, given)
    training.epoch()
    now, before = dict(training.model.net.backbone.named_parameters()), dict(given.named_parameters())
    moved = {key.rpartition(".")[0] for key in now if not torch.equal(now[key], before[key])}
    assert moved == set(training.model.net.trainable_names(1))
    assert len(moved) == 20
