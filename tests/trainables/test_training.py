import copy
import gc
import json
import math
import mmap
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

import spaces
from trainables import device
from trainables import training as training_module
from trainables.batches import Dataset, Grace
from trainables.epoch_result import scores
from trainables.predict import predict
from trainables.settings import Settings
from trainables.training import Training

TINY = {"depth": 1, "filters": 8, "dense_layers": 1, "dense_units": 16, "batch_norm": True, "dropout": 0.3}
CPU = torch.device("cpu")


def stripes(per_class: int = 40, classes: int = 3, side: int = 28) -> Dataset:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side]
    labels = np.repeat(np.arange(classes), per_class)
    rng.shuffle(labels)
    images = np.empty((len(labels), side, side, 1), np.uint8)
    for number, label in enumerate(labels):
        angle, phase = np.pi * label / classes, rng.uniform(0, 6)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.9 + phase) * 80 + 128
        images[number, ..., 0] = np.clip(wave + rng.normal(0, 20, (side, side)), 0, 255)
    half = len(labels) * 3 // 4
    every = np.arange(len(labels))
    return Dataset(images, labels, every[:half], every[half:], classes, (128.0,), (60.0,))


def config(**changes: Any) -> dict[str, Any]:
    return spaces.load("cnn").baseline | TINY | {"batch_size": 16} | changes


@pytest.fixture(scope="module")
def data() -> Dataset:
    return stripes()


@pytest.fixture
def training(data: Dataset) -> Training:
    return Training(data, Settings())


def run(training: Training, epochs: int = 2, seed: int = 1, **changes: Any) -> list[Any]:
    training.begin("cnn", config(**changes), seed=seed, epochs=epochs)
    return [training.epoch() for _ in range(epochs)]


def timeless(results: list[Any]) -> list[Any]:
    return [replace(result, seconds=0.0, images_per_second=0.0, peak_memory_mb=0.0) for result in results]


def test_it_learns_stripes(training: Training) -> None:
    last = run(training, epochs=20, learning_rate=0.003)[-1]
    assert last.val_accuracy > 0.9
    assert last.val_loss < 0.8  # three classes, so guessing gives 1.1
    assert last.epoch == 20


STRONG = {"flip": 0.5, "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "shear": 5.0, "cutout": 0.3}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_reset_equals_fresh_bit_for_bit(data: Dataset, optimizer: str) -> None:
    extra = STRONG | {"optimizer": optimizer} | ({"momentum": 0.9} if optimizer == "sgd" else {})
    fresh = Training(data, Settings())
    first = run(fresh, **extra)
    used = Training(data, Settings())
    run(used, seed=9, depth=2, schedule="plateau", class_weights="balanced")
    torch.rand(1000)
    again = run(used, **extra)
    assert timeless(first) == timeless(again)
    for one, other in zip(fresh.model.state_dict().values(), used.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_another_seed_gives_another_result(training: Training) -> None:
    assert timeless(run(training, seed=1)) != timeless(run(training, seed=2))


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
def test_a_restored_training_goes_on_bit_for_bit(data: Dataset, schedule: str) -> None:
    whole = Training(data, Settings())
    expected = timeless(run(whole, epochs=4, schedule=schedule, **STRONG))
    first = Training(data, Settings())
    first.begin("cnn", config(schedule=schedule, **STRONG), seed=1, epochs=4)
    first.epoch()
    first.epoch()
    state = first.state()
    second = Training(data, Settings())
    second.begin("cnn", config(schedule=schedule, **STRONG), seed=1, epochs=4)
    second.restore(state)
    assert timeless([second.epoch(), second.epoch()]) == expected[2:]


def test_accumulation_takes_the_step_of_one_large_batch(data: Dataset) -> None:
    plain = {"batch_norm": False, "dropout": 0.0, "optimizer": "sgd", "momentum": 0.5}
    at_once, in_parts = Training(data, Settings()), Training(data, Settings())
    run(at_once, epochs=1, batch_size=30, accumulation_steps=1, **plain)
    run(in_parts, epochs=1, batch_size=10, accumulation_steps=3, **plain)
    for one, other in zip(at_once.model.parameters(), in_parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_layers_thaw_with_every_optimizer(data: Dataset, optimizer: str) -> None:
    training = Training(data, Settings())
    changes = {"weights": "none", "input_size": 32, "trainable_layers": 20, "frozen_epochs": 1}
    changes |= {"optimizer": optimizer, "momentum": 0.9}
    training.begin("mobilenet_v2", spaces.load("mobilenet_v2").baseline | changes, seed=1, epochs=3)
    frozen = [each.detach().clone() for each in training.parameters]
    results = [training.epoch() for _ in range(2)]
    assert all(math.isfinite(result.train_loss) for result in results)
    moved = [not torch.equal(before, after) for before, after in zip(frozen, training.parameters, strict=True)]
    assert 10 < sum(moved) < len(moved)


def test_what_was_trained_is_gone_before_the_next_model_is_built(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(data, Settings())
    changes = {"weights": "none", "input_size": 32, "trainable_layers": 20, "frozen_epochs": 0}
    training.begin("mobilenet_v2", spaces.load("mobilenet_v2").baseline | changes, seed=1, epochs=3)
    gc.disable()  # nobody looks for circles
    halves = training.model.halves()  # as an epoch asks for them
    assert halves
    held = [weakref.ref(each) for each in training.parameters]
    build, there = training_module.build_classifier, []

    def built(*given: Any, **more: Any) -> Any:
        there.append(sum(each() is not None for each in held))
        return build(*given, **more)

    monkeypatch.setattr(training_module, "build_classifier", built)
    del halves
    try:
        training.begin("cnn", config(), seed=0, epochs=1)
    finally:
        gc.enable()
    assert there == [0]


def test_validation_loss_is_plain_cross_entropy_whatever_was_trained(data: Dataset) -> None:
    training = Training(data, Settings())
    result = run(training, epochs=1, label_smoothing=0.2, class_weights="balanced")[0]
    probabilities = predict(training.model, data.images[data.val], CPU)
    truth = data.labels[data.val]
    assert result.val_loss == pytest.approx(-np.log(probabilities[np.arange(len(truth)), truth]).mean(), rel=1e-4)
    assert result.val_accuracy == pytest.approx((probabilities.argmax(1) == truth).mean())


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth, guess = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    confusion = np.zeros((6, 6), np.int64)
    np.add.at(confusion, (truth, guess), 1)
    found = scores(confusion)
    assert found["val_accuracy"] == pytest.approx((truth == guess).mean())
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["val_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, guess))
    assert found["val_macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))


def test_balanced_weights_are_one_on_the_average_image(data: Dataset) -> None:
    uneven = replace(data, train=data.train[data.labels[data.train] < 2][:40])
    training = Training(uneven, Settings())
    training.begin("cnn", config(class_weights="balanced"), seed=0, epochs=1)
    assert training.class_weights is not None
    counts = np.bincount(data.labels[uneven.train], minlength=3)
    assert (training.class_weights.numpy()[:2] * counts[:2]).sum() / 40 == pytest.approx(2 / 3)
    assert training.epoch().val_loss is not None


def test_training_on_validation_images_too_validates_on_none_and_replays_learning_rates(data: Dataset) -> None:
    training = Training(data, Settings())
    recorded = [0.001, 0.0005]
    changes = config(schedule="plateau")
    training.begin("cnn", changes, seed=0, epochs=5, train_on_val=True, learning_rates=recorded)
    results = [training.epoch(), training.epoch()]
    assert [result.learning_rate for result in results] == recorded
    assert (results[0].val_loss, results[0].val_accuracy) == (None, None)
    assert len(training.train_indices) == len(data.labels)


def test_a_loss_that_is_no_number_is_a_diverged_result_and_fits_into_json(data: Dataset) -> None:
    training = Training(data, Settings())
    training.begin("cnn", config(optimizer="sgd", momentum=0.99, learning_rate=0.1), seed=0, epochs=2)
    with torch.no_grad():
        next(iter(training.model.parameters())).fill_(float("nan"))
    result = training.epoch()
    assert result.diverged
    assert math.isnan(result.train_loss)
    kept = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert kept["train_loss"] is None


def test_bf16_trains_about_as_well(data: Dataset) -> None:
    training = Training(data, Settings(precision="bf16"))
    assert run(training, epochs=20, learning_rate=0.003)[-1].val_accuracy > 0.9


def test_evaluation_batches_are_sized_by_what_the_network_sees(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CPU_EVALUATION_PIXELS", 4 * 64 * 64)
    monkeypatch.setattr(device, "CPU_EVALUATION_IMAGES", 1)
    training = Training(data, Settings())
    training.begin("cnn", config(), seed=0, epochs=1)
    seen: list[int] = []
    training.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    predict(training.model, data.images[data.val], CPU)
    assert seen == [20, 10]  # 4 * 64 * 64 pixels are 20 images of 28 x 28
    training.model.net.input_size = 784  # type: ignore[assignment]  # as networks of one's own name what they take
    predict(training.model, data.images[data.val], CPU)
    assert seen == [20, 10] * 2
    training.model.net.resizes_to = 64  # type: ignore[assignment]
    seen.clear()
    predict(training.model, data.images[data.val], CPU)
    training._validate()
    assert seen == [4, 4, 4, 4, 4, 4, 4, 2] * 2


def test_peak_memory_begins_anew_with_each_trial(training: Training) -> None:
    training.begin("cnn", config(), seed=0, epochs=1)
    if not training.peak_memory.known:
        pytest.skip("this system does not let a process reset its peak memory")
    large = mmap.mmap(-1, 200_000_000)  # not from the heap, which may hold freed memory to give out again
    np.frombuffer(large, np.uint8)[:] = 1
    with_it = training.epoch().peak_memory_mb
    large.close()
    without = run(training, epochs=1)[0].peak_memory_mb
    assert with_it is not None
    assert without < with_it - 150


@pytest.mark.gpu  # only there does the host run ahead
def test_no_step_makes_the_host_wait(data: Dataset) -> None:
    training = Training(data, Settings(device="cuda"))
    run(training, epochs=1, **STRONG)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for start in (0, 16):
            training._step(0, [training.val_indices[start : start + 14]], 0.001, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_first_epochs_of_a_grace_period_train_on_a_share_of_the_images_each_drawn_anew(data: Dataset) -> None:
    rows, grace = torch.from_numpy(data.train), Grace(2, 0.25)
    orders = [grace.order(rows, 7, epochs_done).tolist() for epochs_done in range(4)]
    assert [len(order) for order in orders] == [22, 22, 90, 90]  # of 90
    assert [len(set(order)) for order in orders] == [22, 22, 90, 90]
    assert set(orders[0]) != set(orders[1])
    assert orders[0] == Grace().order(rows, 7, 0).tolist()[:22]
    assert len(Grace(1, 0.2).order(rows[:3], 7, 0)) == 2  # batch norm needs two


def test_a_training_with_a_grace_period_learns_from_fewer_images_and_goes_on_bit_for_bit(data: Dataset) -> None:
    def begun(grace: Grace | None) -> Training:
        training = Training(data, Settings())
        training.begin("cnn", config(), seed=1, epochs=4, grace=grace)
        return training

    whole, part = begun(None), begun(Grace(2, 0.25))
    assert whole.epoch().train_loss != part.epoch().train_loss
    state = copy.deepcopy(part.state())
    after = timeless([part.epoch() for _ in range(3)])
    again = begun(Grace(2, 0.25))
    again.restore(state)
    assert timeless([again.epoch() for _ in range(3)]) == after
