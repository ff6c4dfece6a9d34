"""What a launch is asked: the next trial to run, and whether a running one goes on."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Proposal:
    """One trial to run: what it is for, its configuration and seed, and what the trainable must do with them.

    `method` is what proposed it (a search method, `baseline`, `analysis`). `work` holds `epochs` (how many at most)
    and whatever else the trainable reads; `rejected` the configurations that were refused before this one, as the
    fields of `rejected` rows.
    """

    role: str
    architecture: str
    config: dict[str, Any]
    seed: int
    work: dict[str, Any]
    method: str
    rejected: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on after an epoch, and the sentence that says why; kept when `rung` or when it stops.

    `status` is what a stopped trial becomes: `stopped` (a cutoff, the time budget) or `completed` (converged).
    `cause` is what decided: `rung`, `patience` or `budget`.
    """

    stop: bool
    sentence: str
    rung: bool = False
    status: str = "stopped"
    cause: str = "rung"
