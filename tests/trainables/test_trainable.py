"""What a worker reports of an epoch whose state cannot be written."""

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainables.batches import Grace
from trainables.epoch_result import EpochResult
from trainables.together import Alone

RESULT = EpochResult(2, 1.0, 0.5, 1.0, 0.5, 0.5, 0.5, 0.1, 1.0, 10.0, 1.0)


def worker(folder: Path, work: dict[str, Any]) -> Any:
    """Return a worker in its second epoch, whose disk is full."""
    from trainables.trainable import TrialWorker

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a02-e0002")

    made = TrialWorker()
    made.handed_out, made.epochs, made.store, made.team = {"attempt": 2, "work": work}, [], None, Alone()
    made.training = SimpleNamespace(epoch=lambda: RESULT, validated=None, grace=Grace(), state=dict)
    made.folder = made.here = made.checkpoints = folder
    made.writer = SimpleNamespace(submit=full, finish=list, collect=list)  # type: ignore[assignment]
    made.checkpoint_seconds, made.snapshot_time, made.write_seconds = 0.0, time.monotonic(), 0.0
    return made


def test_an_epoch_stands_without_its_checkpoint_but_for_the_last_of_a_trial_whose_weights_are_wanted(
    tmp_path: Path,
) -> None:
    """That trial ended as completed, and the analysis tested and shipped the weights of an earlier epoch."""
    unwritten = {"errno": errno.ENOSPC, "strerror": "No space left on device", "path": "a02-e0002"}
    report = worker(tmp_path, {"epochs": 3, "keep_checkpoint": True})._epoch()
    assert (report["kind"], report["epoch"]["epoch"], report["unwritten"]) == ("epoch", 2, unwritten)
    report = worker(tmp_path, {"epochs": 2, "keep_checkpoint": True})._epoch()
    assert report == {"kind": "unwritten", "unwritten": unwritten}
