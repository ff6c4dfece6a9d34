"""Two processes that train one model together, against one that computes the same shares one after the other."""

import multiprocessing
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn

import spaces
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.together import PeerLost, Team
from trainables.training import Training

LIMIT_SECONDS = 100
EPOCHS = 2
# Sums of the same numbers in another order: after 2 epochs of 8 steps no weight differs by more than 2e-6 here.
TOLERANCE = 2e-5
TINY = {"depth": 2, "filters": 8, "dense_layers": 1, "dense_units": 16, "batch_size": 16}
PLAIN = TINY | {"batch_norm": False, "dropout": 0.0, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.02}
STRONG = {"flip": 0.5, "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "shear": 5.0, "cutout": 0.3}
FULL = PLAIN | STRONG | {"batch_norm": True, "dropout": 0.3, "label_smoothing": 0.1, "class_weights": "balanced"}

pytestmark = pytest.mark.timeout(2 * LIMIT_SECONDS)


def stripes(count: int = 131) -> Dataset:
    """Return images of three classes; the last of the batches of 16 that train has 3 images, too few to be cut."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    images = (rng.random((count, 28, 28, 1)) * 80 + 60 * labels[:, None, None, None]).astype(np.uint8)
    every = np.arange(count)
    return Dataset(images, labels, every[:100], every[100:], 3, (128.0,), (60.0,))


class InTurn(Team):
    """One process that computes the shares of all: what a team must agree with, random numbers included."""

    def join(self, model: nn.Module, seed: int) -> None:
        self.seed = seed

    def deal(self, part: Tensor) -> list[tuple[int, Tensor, int]]:
        if len(part) < 2 * self.size:
            return [(0, part, 1)]
        return [(rank, share, 1) for rank, share in enumerate(part.tensor_split(self.size))]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        pass

    def agree(self, model: nn.Module) -> None:
        pass


def config(**changes: Any) -> dict[str, Any]:
    return spaces.load("cnn").baseline | changes


def trained(given: dict[str, Any], team: Team | None, **extra: Any) -> tuple[dict[str, Tensor], list[Any]]:
    training = Training(stripes(), Settings())
    training.begin("cnn", given, seed=1, epochs=EPOCHS, train_on_val=True, team=team, **extra)
    results = [training.epoch() for _ in range(EPOCHS)]
    return training.model.state_dict(), results


def process(rank: int, size: int, port: int, folder: str, given: dict[str, Any], dies: bool) -> None:
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", timedelta(seconds=60), world_size=size, rank=rank)
    team = Team(rank, size)
    if dies:
        if rank:
            return
        try:
            team.add_up([torch.ones(3)])
        except PeerLost as error:
            (Path(folder) / "lost").write_text(str(error))
        return
    assert team.from_first(lambda: {"of": rank}) == {"of": 0}
    state, results = trained(given, team)
    torch.save({"state": state, "results": [result.to_json() for result in results]}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def together(folder: Path, given: dict[str, Any], size: int = 2, dies: bool = False) -> list[dict[str, Any]]:
    """Train in processes of their own, and return what each of them came to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=process, args=(rank, size, port, str(folder), given, dies)) for rank in range(size)
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join(LIMIT_SECONDS)
        each.kill()
    assert [each.exitcode for each in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt") for rank in range(size) if not dies]


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((one[name].float() - other[name].float()).abs().max()) for name in one}


def of_weights(differences: dict[str, float]) -> Iterator[float]:
    return (value for name, value in differences.items() if "running_" not in name)


def test_two_workers_are_one_that_accumulates_twice_as_often_at_the_same_micro_batch(tmp_path: Path) -> None:
    first, second = together(tmp_path, config(**PLAIN, accumulation_steps=1))
    alone, results = trained(config(**PLAIN | {"batch_size": 8}, accumulation_steps=2), None)
    assert max(differences(first["state"], second["state"]).values()) == 0
    found = differences(first["state"], alone)
    print(found)
    assert max(found.values()) < TOLERANCE
    for together_, by_itself in zip(first["results"], results, strict=True):
        assert together_["train_loss"] == pytest.approx(by_itself.train_loss, rel=1e-5)
        assert together_["train_accuracy"] == pytest.approx(by_itself.train_accuracy, abs=0.01)


def test_dropout_augmentation_and_batch_norm_are_the_same_whoever_computes_a_share(tmp_path: Path) -> None:
    given = config(**FULL, accumulation_steps=2)
    first, second = together(tmp_path, given)
    assert max(differences(first["state"], second["state"]).values()) == 0
    in_turn, results = trained(given, InTurn(0, 2))
    found = differences(first["state"], in_turn)
    print(found)
    assert max(of_weights(found)) < TOLERANCE
    assert first["results"][-1]["train_loss"] == pytest.approx(results[-1].train_loss, rel=1e-4)
