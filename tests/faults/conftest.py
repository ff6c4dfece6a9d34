"""A small search that the tests of this folder kill, and the faults they plant in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SPACE = "batch_size: 16\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"

Asked = Callable[..., tuple[str, ...]]
Plant = Callable[..., dict[str, str]]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def asked(tmp_path: Path, storage: Path, striped: Path) -> Asked:
    """Return a function that gives the arguments of a search named `x`, with further ones at the end."""
    (tmp_path / "space.yaml").write_text(SPACE)

    def arguments(*more: str, trials: int = 3, epochs: int = 9, data: Path = striped) -> tuple[str, ...]:
        budget = ("--trials", str(trials), "--epochs", str(epochs), "--precision", "fp32", "--checkpoint-every", "0.2s")
        where = ("--name", "x", "--storage", str(storage), "--space", str(tmp_path / "space.yaml"))
        return ("search", str(data), "--arch", "cnn", *budget, *where, *more)

    return arguments


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Return a function that gives the environment in which faults happen: `plant("trial.begin:kill:2", ...)`."""

    def environment(*faults: str) -> dict[str, str]:
        counts = tmp_path / "fault-counts"
        counts.mkdir(exist_ok=True)
        os.chmod(counts, 0o777)
        return {"CONVSCOUT_FAULT": ",".join(faults), "CONVSCOUT_FAULT_COUNTS": str(counts)}

    return environment
