"""Two processes that train one model together, against one that computes the same shares one after the other."""

import json
import multiprocessing
import os
import socket
from collections.abc import Sequence
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn

import spaces
from foundation import seed_from
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.together import Alone, PeerLost, Team, synchronise_batch_norm
from trainables.training import Training

LIMIT_SECONDS = 100
EPOCHS = 2
# Sums of the same numbers in another order. Measured after 2 epochs: 0 to 3e-8 with sgd, for weights of up to 0.6.
TOLERANCE = 1e-5
TINY = {"depth": 2, "filters": 8, "dense_layers": 1, "dense_units": 16, "batch_size": 16}
PLAIN = TINY | {"batch_norm": False, "dropout": 0.0, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.02}
STRONG = {"flip": 0.5, "rotation": 10.0, "shift": 0.1, "zoom": 0.1, "shear": 5.0, "cutout": 0.3}
FULL = PLAIN | STRONG | {"batch_norm": True, "dropout": 0.3, "label_smoothing": 0.1, "class_weights": "balanced"}

pytestmark = pytest.mark.timeout(2 * LIMIT_SECONDS)


def config(**changes: Any) -> dict[str, Any]:
    return spaces.load("cnn").baseline | changes


CASES = {
    "plain": config(**PLAIN, accumulation_steps=1),
    "full": config(**FULL, accumulation_steps=2),
    "adam": config(**{name: FULL[name] for name in FULL if name != "momentum"} | {"optimizer": "adamw"}),
}


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


def trained(given: dict[str, Any], team: Alone | None = None, **extra: Any) -> dict[str, Any]:
    training = Training(stripes(), Settings())
    training.begin("cnn", given, seed=1, epochs=EPOCHS, train_on_val=True, team=team, **extra)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    results = [training.epoch().to_json() for _ in range(EPOCHS)]
    return {"before": before, "state": training.model.state_dict(), "results": results}


def process(rank: int, port: int, folder: str) -> None:
    """Be one of two that train every case together; then the second one goes, and the first one is to notice."""
    timeout = timedelta(seconds=LIMIT_SECONDS)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", timeout, world_size=2, rank=rank)
    team = Team(rank, 2)
    torch.manual_seed(rank)  # whatever they began with
    found: dict[str, Any] = {name: trained(given, team) for name, given in CASES.items()}
    found["said"] = team.from_first(lambda: {"rank": rank})
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()
    if rank == 0:
        try:
            team.add_up([torch.ones(3)])
        except PeerLost as error:
            (Path(folder) / "lost").write_text(str(error))
    os._exit(0)  # gloo's own threads abort a process whose peer is gone, now and then, while it ends


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes have left what they came to."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=process, args=(rank, port, str(folder))) for rank in range(2)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(LIMIT_SECONDS)
        each.kill()
    assert [each.exitcode for each in processes] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = (torch.load(folder / f"{rank}.pt") for rank in range(2))
    return first, second


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor], *, statistics: bool) -> float:
    """Return the largest difference of two models' weights, and of what batch norm keeps."""
    names = [
        name for name in one if statistics or not name.endswith(("running_mean", "running_var", "batches_tracked"))
    ]
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in names)


def test_two_workers_are_one_that_accumulates_twice_as_often_at_the_same_micro_batch(both: Any) -> None:
    together = both[0]["plain"]
    alone = trained(config(**PLAIN | {"batch_size": 8}, accumulation_steps=2))
    assert largest_difference(together["before"], alone["before"], statistics=True) == 0
    assert largest_difference(together["state"], alone["state"], statistics=True) < TOLERANCE
    assert largest_difference(together["state"], together["before"], statistics=True) > 1000 * TOLERANCE
    for one, other in zip(together["results"], alone["results"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["train_accuracy"] == pytest.approx(other["train_accuracy"], abs=1e-3)
        assert one["learning_rate"] == other["learning_rate"]


@pytest.mark.parametrize("case", ["full", "adam"])
def test_dropout_augmentation_and_batch_norm_of_a_share_are_the_same_whoever_computes_it(both: Any, case: str) -> None:
    together, in_turn = both[0][case], trained(CASES[case], InTurn(0, 2))
    assert largest_difference(together["state"], in_turn["state"], statistics=False) < TOLERANCE
    assert largest_difference(together["state"], together["before"], statistics=False) > 100 * TOLERANCE
    assert together["results"][-1]["train_loss"] == pytest.approx(in_turn["results"][-1]["train_loss"], rel=1e-4)


@pytest.mark.parametrize("case", list(CASES))
def test_all_of_a_team_come_to_the_same_model_bit_for_bit(both: Any, case: str) -> None:
    first, second = both[0][case], both[1][case]
    assert largest_difference(first["state"], second["state"], statistics=True) == 0
    assert [row["train_loss"] for row in first["results"]] == [row["train_loss"] for row in second["results"]]


def test_what_batch_norm_keeps_is_the_mean_of_what_its_shares_had(both: Any) -> None:
    """Not that of one process: it would see twice as many, smaller batches, so these statistics are not equal."""
    kept = both[0]["full"]["state"]["net.features.0.1.running_mean"]
    passes = both[0]["full"]["state"]["net.features.0.1.num_batches_tracked"]
    assert passes == EPOCHS * 9  # as often as a process that trains alone passes its micro-batches
    in_turn = trained(CASES["full"], InTurn(0, 2))["state"]
    last = in_turn["net.features.0.1.running_mean"]
    assert torch.nn.functional.cosine_similarity(kept, last, dim=0) > 0.98


def test_the_others_are_told_what_the_first_one_has_made(both: Any) -> None:
    assert [each["said"] for each in both] == [{"rank": 0}, {"rank": 0}]


@pytest.mark.usefixtures("both")
def test_a_process_that_is_gone_is_no_fault_of_the_model(folder: Path) -> None:
    assert (folder / "lost").read_text().startswith("another process of the team is gone: ")


def test_shares_cover_every_image_once_and_small_batches_are_computed_by_all() -> None:
    for size in (2, 3, 5):
        teams = [Team(rank, size) for rank in range(size)]
        for count in range(2, 40):
            dealt = [team.deal(torch.arange(count)) for team in teams]
            assert all(len(each) == 1 for each in dealt)  # all pass the model as often, as synchronised norms need
            shares = [share for [(_, share, _)] in dealt]
            copies = {number for [(_, _, number)] in dealt}
            if count < 2 * size:
                assert copies == {size}
                assert all(torch.equal(share, torch.arange(count)) for share in shares)
            else:
                assert copies == {1}
                assert torch.equal(torch.cat(shares), torch.arange(count))
                assert min(len(share) for share in shares) >= 2  # batch norm cannot use a single image


def test_a_process_that_trains_alone_draws_its_numbers_as_it_always_did() -> None:
    training = Training(stripes(), Settings())
    training.begin("cnn", CASES["full"], seed=1, epochs=EPOCHS)
    state = torch.get_rng_state(), training.generator.get_state()
    parts = [torch.arange(4), torch.arange(2)]
    assert [each[1] for each in training.team.shares(parts, (0, 0), training.generator)] == [1, 1]
    assert all(
        torch.equal(*pair) for pair in zip(state, (torch.get_rng_state(), training.generator.get_state()), strict=True)
    )
    assert training.generator.initial_seed() == seed_from(1, "batches")


def test_a_team_has_no_images_to_validate_on() -> None:
    training = Training(stripes(), Settings())
    with pytest.raises(ValueError, match="no images to validate on: train_on_val is needed"):
        training.begin("cnn", CASES["plain"], seed=1, epochs=1, team=InTurn(0, 2))


def test_batch_norm_is_synchronised_in_place() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)))
    norm, expected = model[1], nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(model))
    synchronise_batch_norm(model)
    assert model[1] is norm
    assert [type(each) for each in model.modules()] == [type(each) for each in expected.modules()]
    assert list(model.state_dict()) == list(expected.state_dict())
    assert model[1].process_group is None
    model.eval()
    assert model(torch.rand(2, 1, 3, 3)).shape == (2, 4)


class Steps:
    """Stands for a worker: gives reports that were written beforehand."""

    def __init__(self, *reports: dict[str, Any]) -> None:
        self.reports = list(reports)
        self.took: list[str] = []

    def setup(self, trial: dict[str, str], team: Team, **_: Any) -> None:
        self.team = team
        self.reset_config(trial)

    def reset_config(self, trial: dict[str, str]) -> None:
        self.took.append(trial["handed_out"])
        self.handed_out = json.loads(trial["handed_out"])

    def step(self) -> dict[str, str]:
        return {"report": json.dumps(self.reports.pop(0))}

    def cleanup(self) -> None:
        self.took.append("no more")


def worked(monkeypatch: pytest.MonkeyPatch, rank: int, worker: Steps, *given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a worker reports of the trials it is given: process `rank` of two."""
    from trainables import team_worker

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(team_worker, "TrialWorker", lambda: worker)
    texts = [*(json.dumps(trial) for trial in given), None]
    team_worker.train_together(rank, 2, texts.__getitem__, lambda said: reports.append(json.loads(said)), {})
    return reports


TWO_EPOCHS = {"work": {"epochs": 2}}
BEGUN: dict[str, Any] = {"kind": "started", "epochs": []}
DONE = [{"kind": "epoch", "epoch": {"epoch": number}} for number in (1, 2)]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_trains_trial_after_trial_and_only_the_first_of_a_team_reports(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    diverged = {"kind": "epoch", "epoch": {"epoch": 1}, "failed": {"status": "diverged", "error": "nan"}}
    over = BEGUN | {"epochs": [{}, {}]}  # a checkpoint knew all of them
    steps = [BEGUN, *DONE, BEGUN, diverged, over]
    worker = Steps(*steps)
    found = worked(monkeypatch, rank, worker, TWO_EPOCHS, TWO_EPOCHS, TWO_EPOCHS)
    assert found == ([] if rank else steps)
    assert (worker.team.rank, worker.team.size) == (rank, 2)
    assert (len(worker.took), worker.took[-1], worker.reports) == (4, "no more", [])


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"kind": "failed", "status": "infeasible", "error": "no such layer"}, "no such layer"),
        (DONE[0] | {"unwritten": {"path": "a.pt", "strerror": "No space left"}}, "a.pt: No space left"),
        ({"kind": "unwritten", "unwritten": {"path": "b.pt", "strerror": "No space left"}}, "b.pt: No space left"),
    ],
)
def test_a_trial_that_fails_is_reported_and_ends_its_team(
    monkeypatch: pytest.MonkeyPatch, last: dict[str, Any], message: str
) -> None:
    from trainables.team_worker import TeamFailed

    worker = Steps(BEGUN, last, *DONE)
    with pytest.raises(TeamFailed, match=f"^{message}$"):
        worked(monkeypatch, 0, worker, TWO_EPOCHS, TWO_EPOCHS)
    assert len(worker.reports) == 2
