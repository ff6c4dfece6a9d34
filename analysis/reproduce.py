"""Reproduce: train a trial again from its recorded configuration and seed, and compare the curves epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.experiment import Experiment, open_experiment
from analysis.retrain import run_trials
from cluster.history import History
from cluster.ledger import Ledger
from cluster.lock import Lock
from cluster.naming import run_argument
from cluster.proposal import Proposal
from cluster.record import TrialRecord
from cluster.session import Tell, note_resumed
from foundation import RequestError, count

ROLE = "reproduce"
COMPARED = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_macro_f1",
    "learning_rate",
)


@dataclass(frozen=True)
class Difference:
    """Two values of a metric at an epoch that ought to be one."""

    epoch: int
    metric: str
    before: float | None
    now: float | None

    @property
    def relative(self) -> float:
        """The difference as a share of the value before; infinite where one of them is no number."""
        if self.before is None or self.now is None:
            return float("inf")
        return abs(self.now - self.before) / max(abs(self.before), 1e-12)


@dataclass(frozen=True)
class Reproduction:
    """How a trial trained again compares: the epochs compared, every difference in order, and what may explain it."""

    trial: int
    epochs: int
    before: tuple[Mapping[str, Any], ...]
    now: tuple[Mapping[str, Any], ...]
    differences: tuple[Difference, ...]
    causes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether all epochs are equal, bit for bit."""
        return not self.differences and len(self.now) == len(self.before)

    def sentence(self) -> str:
        """Return what was found, the first difference first."""
        if self.equal:
            return f"Trial {self.trial} was reproduced: all {count(self.epochs, 'epoch')} are equal, bit for bit."
        if not self.differences:
            return (
                f"Trial {self.trial} ran {count(len(self.before), 'epoch')} and now ended after {len(self.now)}: "
                "those are equal."
            )
        first = self.differences[0]
        most = max(each.relative for each in self.differences if each.metric == first.metric)
        return (
            f"Trial {self.trial} differs from epoch {first.epoch} on: {first.metric} was {_number(first.before)} and "
            f"is {_number(first.now)} ({first.relative:.2g} of it); at most {most:.2g} of it in any epoch."
        )


def reproduce(
    folder: Path,
    trial: int,
    *,
    lock: Lock | None = None,
    address: str | None = None,
    quiet: bool = False,
    tell: Tell = lambda _: None,
) -> Reproduction:
    """Train a trial again, for the epochs it ran, with its configuration, seed and learning-rate curve; compare.

    The new training has a role of its own, and counts in no ranking. One that was interrupted goes on. It runs
    on the cluster of the last command, or at `address`. Raises `RequestError` where there is nothing to reproduce,
    KeyboardInterrupt when it was interrupted.
    """
    with Ledger(folder, lock) as ledger:
        history = ledger.history
        original = _original(history, trial, folder)
        experiment = open_experiment(folder, history)
        note_resumed(ledger, experiment.asked, tell)
        work = {**original.work, "epochs": len(original.epochs), "of": trial, "keep_checkpoint": False}
        proposal = Proposal(ROLE, original.architecture, original.config, original.seed, work, method=ROLE)
        begun = [record for record in history.of_role(ROLE) if record.live and record.work["of"] == trial]
        wanted = len(history.of_role(ROLE)) + (not begun)
        run_trials(
            ledger,
            (ROLE,),
            lambda known: proposal if len(known.of_role(ROLE)) < wanted else None,
            what=f"trial {trial} again",
            wanted=wanted,
            quiet=quiet,
            workers=original.workers,
            address=address,
            tell=tell,
        )
        again = next(record for record in reversed(history.of_role(ROLE)) if record.work["of"] == trial)
        if not again.epochs:
            raise RequestError(f"trial {trial} could not be trained again: {again.status}, {again.error}")
        differences = tuple(compared(original, again))
        causes = () if not differences else tuple(likely_causes(experiment, original, again))
        before, now = tuple(original.epochs), tuple(again.epochs)
        return Reproduction(trial, len(again.epochs), before, now, differences, causes)


def compared(original: TrialRecord, again: TrialRecord) -> list[Difference]:
    """Return every value of the epochs that both have which differs in any bit, in order."""
    return [
        Difference(before["epoch"], metric, before[metric], now[metric])
        for before, now in zip(original.epochs, again.epochs, strict=False)
        for metric in COMPARED
        if before.get(metric) != now.get(metric)
    ]


def likely_causes(experiment: Experiment, original: TrialRecord, again: TrialRecord) -> list[str]:
    """Return what is no longer as it was, the likeliest cause of a difference first."""
    then, now = _started(original), _started(again)
    found = []
    recorded, there = experiment.asked["data"]["fingerprint"], experiment.cache().fingerprint
    if recorded != there:
        found.append(f"data: its fingerprint was {recorded[:12]} and is {there[:12]}")
    if then.get("device") != now.get("device"):
        found.append(f"hardware: it ran on {then.get('device')}, now on {now.get('device')}")
    if then.get("micro_batch_divisor") != now.get("micro_batch_divisor"):
        found.append(
            f"batches: they were computed in {then.get('micro_batch_divisor')} parts for want of memory, now in "
            f"{now.get('micro_batch_divisor')}"
        )
    if len(original.started) > 1:
        found.append(f"interruptions: it was begun {len(original.started)} times, and went on from checkpoints")
    found += _changed_versions(experiment, then.get("seq", 0), now.get("seq", 0))
    settings = (experiment.history.calibrated or {}).get("settings", {}).get(original.architecture, {})
    if settings.get("device", "cpu") != "cpu":
        found.append(f"precision: {settings.get('precision')} on a GPU, which may add in another order each time")
    return found or ["none that is known: data, hardware, precision and versions are as they were"]


def _changed_versions(experiment: Experiment, then_seq: int, now_seq: int) -> list[str]:
    def at(seq: int) -> Mapping[str, str]:
        before = [row["versions"] for row in experiment.history.resumes if row["seq"] <= seq]
        versions: Mapping[str, str] = before[-1] if before else experiment.asked["versions"]
        return versions

    then, now = at(then_seq), at(now_seq)
    return [
        f"versions: {name} was {then.get(name, 'not there')} and is {now.get(name, 'not there')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def _started(record: TrialRecord) -> Mapping[str, Any]:
    return record.started[-1] if record.started else {}


def _original(history: History, trial: int, folder: Path) -> TrialRecord:
    known: Sequence[int] = [record.trial for record in history.trials.values() if record.role != ROLE]
    if trial not in known:
        closest = sorted(known, key=lambda number: abs(number - trial))[:3]
        numbers = ", ".join(str(number) for number in sorted(closest)) or "none"
        raise RequestError(f"trial {trial} is not known in {folder.name}: the closest that are there: {numbers}")
    record = history.trials[trial]
    if record.live:
        verb = "resume" if record.role == "search" else "analyze"
        raise RequestError(f"trial {trial} has not ended: `convscout {verb} {run_argument(folder)}` goes on with it")
    if not record.epochs:
        raise RequestError(f"trial {trial} has no finished epoch to compare: it is {record.status}, {record.error}")
    return record


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.6g}"
