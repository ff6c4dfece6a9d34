"""What watches a launch: TensorBoard events always, and the live table unless asked to be quiet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.dispatch import Observer
from cluster.forecast import Stopping
from cluster.progress import Progress
from cluster.tensorboard import TensorBoardWriter


def watchers(
    folder: Path,
    experiment: Mapping[str, Any],
    roles: Sequence[str],
    slots: int,
    *,
    what: str,
    wanted: int | None = None,
    budget_seconds: float | None = None,
    stopping: Stopping | None = None,
    quiet: bool = False,
) -> list[Observer]:
    """Return the observers of a launch of some roles.

    `experiment` is what `experiment.json` holds; `slots` how many trials run side by side; `wanted` how many there
    will be, for other roles than `search`; `stopping` how trials are stopped; `what` the display is called.
    """
    metric = experiment["spec"]["metric"]
    found: list[Observer] = [TensorBoardWriter(folder, _hyperparameters(experiment["spaces"]), metric)]
    if not quiet:
        title = f"{experiment['name']} ({what})"
        found.append(Progress(roles, title, metric, slots, wanted, budget_seconds, stopping))
    return found


def _hyperparameters(spaces: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """Return the options, or the two ends, of every knob of any architecture."""
    values: dict[str, list[Any]] = {"architecture": list(spaces)}
    for rows in spaces.values():
        for row in rows:
            domain = row["domain"]
            while "domain" in domain:  # a condition around the range itself
                domain = domain["domain"]
            known = values.setdefault(row["knob"], [])
            ends = domain["options"] if "options" in domain else (domain["low"], domain["high"])
            known += [value for value in ends if value not in known]
    return values
