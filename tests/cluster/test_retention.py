"""Which checkpoints stay on disk."""

from pathlib import Path

import pytest

from cluster.history import History
from cluster.retention import RESCUE_CANDIDATES, Retention
from cluster.storage import checkpoint_folder


class Experiment:
    """Trials that have a checkpoint each and end one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history, self.seq = folder, History(), 0

    def row(self, event: str, **fields: object) -> None:
        self.seq += 1
        self.history.apply({"seq": self.seq, "time": 0.0, "incarnation": 1, "event": event, **fields})

    def trial(self, accuracy: float, role: str = "search", **work: object) -> int:
        number = self.history.next_trial()
        about = {"architecture": "cnn", "config": {}, "seed": 0, "method": "random", "work": {"epochs": 9, **work}}
        self.row("proposed", trial=number, role=role, **about)
        self.row("started", trial=number, attempt=1)
        values = {"val_loss": 1.0, "val_accuracy": accuracy, "seconds": 1.0}
        self.row("epoch", trial=number, attempt=1, epoch=1, **values)
        (checkpoint_folder(self.folder, number) / "a01-e0001").mkdir(parents=True)
        return number

    def end(self, retention: Retention, number: int, status: str) -> None:
        self.row("ended", trial=number, status=status)
        retention.ended(self.history.trials[number])
        retention.wait()

    def kept(self) -> list[int]:
        return sorted(int(path.parent.name) for path in self.folder.glob("trials/*/checkpoint"))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path)


def test_the_best_stopped_trials_keep_theirs_and_the_others_go(experiment: Experiment) -> None:
    retention = Retention(experiment.folder, experiment.history, "val_accuracy")
    scores = [0.3, 0.5, 0.1, 0.9, 0.4, 0.2]
    for accuracy in scores:
        experiment.end(retention, experiment.trial(accuracy), "stopped")
    for status in ("completed", "diverged", "lost"):
        experiment.end(retention, experiment.trial(0.99), status)
    running, final = experiment.trial(0.0), experiment.trial(0.0, role="final", keep_checkpoint=True)
    experiment.end(retention, final, "completed")
    best = sorted(range(len(scores)), key=lambda number: -scores[number])[:RESCUE_CANDIDATES]
    assert experiment.kept() == sorted([*best, running, final])


def test_what_a_crash_left_behind_is_removed_at_the_next_start(experiment: Experiment) -> None:
    numbers = [experiment.trial(accuracy) for accuracy in (0.1, 0.2, 0.3, 0.4, 0.5)]
    for number in numbers:
        experiment.row("ended", trial=number, status="stopped")
    unknown = checkpoint_folder(experiment.folder, 77) / "a01-e0001"
    unknown.mkdir(parents=True)
    retention = Retention(experiment.folder, experiment.history, "val_accuracy")
    assert experiment.kept() == [2, 3, 4]
    experiment.end(retention, experiment.trial(0.35), "stopped")
    assert experiment.kept() == [3, 4, 5]


def test_a_rescued_trial_is_a_candidate_no_more(experiment: Experiment) -> None:
    retention = Retention(experiment.folder, experiment.history, "val_accuracy")
    first = experiment.trial(0.9)
    experiment.end(retention, first, "stopped")
    experiment.row("reopened", trial=first, why="rescue")
    others = [experiment.trial(0.1), experiment.trial(0.2), experiment.trial(0.3)]
    for number in others:
        experiment.end(retention, number, "stopped")
    assert experiment.kept() == [first, *others]
    experiment.end(retention, first, "completed")
    assert experiment.kept() == others
