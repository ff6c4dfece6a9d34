"""What frozen layers compute is computed once, by any trial that freezes the same, and teaches the same."""

import gc
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

import spaces
from trainables import frozen, models
from trainables import training as training_module
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training

TRANSFER = [name for name in models.names() if "weights" in spaces.load(name).knobs]
PLAIN = dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "cutout"), 0.0)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    arrays = (images, np.arange(16) % 3, np.arange(12), np.arange(12, 16), 3, (128.0,) * 3, (70.0,) * 3)
    return Dataset(*arrays, features=tmp_path / "features")


def config(**changes):
    small = {"weights": "none", "input_size": 32, "dense_units": 8, "trainable_layers": 0, "batch_size": 4}
    return spaces.load("mobilenet_v2").baseline | PLAIN | small | changes


def begun(data, name="mobilenet_v2", seed=1, **changes):
    training = Training(data, Settings())
    training.begin(name, config(**changes), seed=seed, epochs=4)
    return training


def files(data):
    return sorted(path.name for path in data.features.glob("*.npy"))


def same_weights(monkeypatch):
    """Let every model begin with the same backbone, as published weights would."""
    torch.manual_seed(3)
    backbone = models.load("mobilenet_v2")(
        (3, 32, 32), 3, weights="none", input_size=32, dense_units=0, dropout=0.0, batch_norm=False
    ).backbone.state_dict()
    begin = Training.begin

    def with_weights(self, *arguments, **options):
        begin(self, *arguments, **options)
        self.model.net.backbone.load_state_dict(backbone)

    monkeypatch.setattr(Training, "begin", with_weights)


@pytest.mark.parametrize("layers", [0, 1, 20])
@pytest.mark.parametrize("name", TRANSFER)
def test_the_two_halves_are_the_model_and_nothing_in_the_first_trains(name, layers):
    knobs = {"weights": "none", "input_size": 32, "dense_units": 0, "dropout": 0.0, "batch_norm": False}
    model = models.build_classifier(
        name, (3, 32, 32), 3, knobs | {"trainable_layers": layers}, mean=[0] * 3, deviation=[1] * 3
    ).eval()
    first, rest = model.halves()
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert sum(each.numel() for each in first.parameters()) > 0
    images = torch.rand(4, 3, 32, 32) * 255
    with torch.inference_mode():
        assert torch.equal(rest(first(model.prepared(images))), model(images))


def test_a_backbone_that_trains_as_a_whole_has_no_halves(data):
    training = begun(data, trainable_layers="all", frozen_epochs=0)
    assert training.model.halves() is None
    epoch = training.epoch()
    assert (epoch.reads_features, epoch.features_not_kept) == (False, False)
    assert not data.features.exists()


def test_it_teaches_what_computing_each_time_teaches(data, monkeypatch):
    same_weights(monkeypatch)
    once, each_time = begun(data), begun(replace(data, features=None))
    for _ in range(3):
        kept, computed = once.epoch(), each_time.epoch()
        assert (kept.reads_features, kept.features_not_kept) == (True, False)
        assert (computed.reads_features, computed.features_not_kept) == (False, False)  # nobody asked to keep it
        assert kept.train_loss == pytest.approx(computed.train_loss, rel=1e-5)
        assert kept.val_loss == pytest.approx(computed.val_loss, rel=1e-5)


def test_after_the_thaw_the_logits_of_a_training_step_are_those_of_computing_each_time(data):
    changes = {"trainable_layers": 20, "frozen_epochs": 1, "dropout": 0.0}
    once, each_time = begun(data, **changes), begun(replace(data, features=None), **changes)
    some = torch.tensor([3, 1, 7, 2])
    logits = []
    for training in (once, each_time):
        training.epoch()
        training.model.begin_epoch(1)
        training.model.train()
        logits.append(training._forward(some, training._frozen_features(()))[0])
    assert (logits[0] - logits[1]).abs().max() < 1e-6
    assert (logits[0] - logits[0][0]).abs().max() > 1e-5  # they do tell images apart


def test_another_trial_that_freezes_the_same_reads_what_is_there(data, monkeypatch):
    same_weights(monkeypatch)
    begun(data).epoch()
    [name] = files(data)
    second = begun(data, seed=2, learning_rate=0.01, dropout=0.4, dense_units=16)
    calls = []
    second.model.net.backbone.register_forward_hook(lambda *_: calls.append(1))
    assert second.epoch().reads_features
    assert not calls
    assert files(data) == [name]


def test_other_weights_another_size_or_other_frozen_layers_are_computed_anew(data):
    begun(data).epoch()
    begun(data, seed=2).epoch()  # drawn weights: of another seed
    begun(data, input_size=48).epoch()
    begun(data, trainable_layers=20, frozen_epochs=0).epoch()
    assert len(files(data)) == 4


def test_each_epoch_draws_its_own_augmentation_unless_a_number_of_views_is_asked_for(data):
    assert not begun(data, flip=0.5).epoch().reads_features
    [val] = files(data)
    views = begun(data, flip=0.5, augmented_views=2)
    first = views.epoch()
    assert first.reads_features
    assert len(files(data)) == 2
    views.epoch()
    assert len(files(data)) == 3
    views.epoch()  # the first view again
    assert len(files(data)) == 3
    assert val in files(data)


def test_a_view_is_the_same_for_every_trial_and_is_augmented(data, monkeypatch):
    same_weights(monkeypatch)
    begun(data, rotation=20.0, augmented_views=1).epoch()
    assert len(files(data)) == 2
    one, other = (np.load(data.features / name) for name in files(data))
    assert not np.allclose(one, other, atol=0)
    begun(data, seed=5, rotation=20.0, augmented_views=1).epoch()
    assert len(files(data)) == 2


def test_a_view_is_augmented_as_in_training_whatever_the_layers_compute_in(data, monkeypatch):
    """In bf16 the places that pixels are taken from were up to a pixel and a half off at 224 x 224."""
    original, precise = training_module.augment, []

    def noted(*arguments):
        precise.append(not torch.is_autocast_enabled("cpu"))
        return original(*arguments)

    monkeypatch.setattr(training_module, "augment", noted)
    training = Training(data, Settings(precision="bf16"))
    training.begin("mobilenet_v2", config(augmented_views=1, rotation=10.0), seed=1, epochs=4)
    training.epoch()
    assert precise
    assert all(precise)


def test_without_room_the_layers_compute_each_time(data, monkeypatch):
    usage = shutil.disk_usage(data.features.parent)._replace(free=1000)
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda _: usage)
    training = begun(data)
    first, second = training.epoch(), training.epoch()
    assert (first.reads_features, first.features_not_kept, second.epoch) == (False, True, 2)
    assert files(data) == []


@pytest.mark.parametrize("augmented", [{}, {"flip": 0.5, "augmented_views": 1}])
def test_a_training_that_is_let_go_of_leaves_memory_at_once(data, augmented):
    training = begun(data, **augmented)
    training.epoch()
    left = weakref.ref(training)
    gc.disable()
    try:
        del training
        assert left() is None  # in a circle it would wait for the garbage collector
    finally:
        gc.enable()


def test_that_the_next_epoch_trains_other_layers_is_said(data):
    training = begun(data, trainable_layers=20, frozen_epochs=2)
    assert [training.epoch().layers_change for _ in range(3)] == [False, True, False]


def test_features_that_were_used_longest_ago_make_room_for_others(tmp_path, monkeypatch):
    def kept(name):
        return frozen.stored(tmp_path, name, 4, lambda: iter([torch.ones(4, 100)]))

    size = kept("old").nbytes
    kept("new")
    first = kept("old")  # used again: now "new" is the one that goes
    held = sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    usage = shutil.disk_usage(tmp_path)._replace(free=int(2.5 * size / frozen.FREE_DISK_SHARE) - held)
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda _: usage)
    assert kept("third") is not None
    assert sorted(path.stem for path in tmp_path.glob("*.npy")) == ["old", "third"]
    assert first.sum() == 400
