"""One process of a team that trains trial after trial together, each time as its launcher hands it out."""

import json
from collections.abc import Callable
from typing import Any

from trainables.trainable import TrialWorker


class TeamFailed(Exception):
    """A trial could not be trained: its processes end, since nobody knows how far each of them came."""


def train_together(
    rank: int,
    size: int,
    take: Callable[[int], str | None],
    report: Callable[[str], None],
    parameters: dict[str, Any],
) -> None:
    """Train one trial after the other as process `rank` of `size`, whose `torch.distributed` group must have been made.

    `take(number)` waits for trial `number` of this team, counted from 0, as the dispatcher hands it out, in JSON; None
    ends the work. `report` takes what the first process has to say of it. Raises `TeamFailed` after a trial that
    failed, and what memory, the device or a lost process raise.
    """
    from trainables.together import Team

    worker, number = TrialWorker(), 0
    while (given := take(number)) is not None:
        trial = {"handed_out": given}
        if number == 0:
            worker.setup(trial, **parameters, team=Team(rank, size))
        else:
            worker.reset_config(trial)
        while not _over(worker.step()["report"], worker.handed_out["work"]["epochs"], rank, report):
            pass
        number += 1
    worker.cleanup()


def _over(said: str, epochs: int, rank: int, report: Callable[[str], None]) -> bool:
    """Report what a step said, if this process is the first; return whether it was the trial's last."""
    if rank == 0:
        report(said)
    step = json.loads(said)
    if step["kind"] in ("failed", "unwritten") or "unwritten" in step:
        raise TeamFailed(step.get("error") or f"{step['unwritten']['path']}: {step['unwritten']['strerror']}")
    known = step["epoch"]["epoch"] if step["kind"] == "epoch" else len(step["epochs"])
    return "failed" in step or known >= epochs
