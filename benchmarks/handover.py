"""From the end of a trial to the first batch of the next one, on the same worker, under Ray."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from launches import run
from measure import Figures, options, table, tell

from search.methods import STARTUP
from trainables.cache import prepare
from trainables.learned import Needs
from trainables.settings import Settings
from trainables.trainable import ImageTrainable

TRIALS, PER_CLASS, CLASSES = 40, 50, 2
METHODS = ("random", "tpe_asha")
NOTES = "handovers.jsonl"
PARTS = {
    "handover": "from the end of a trial's last step to the next one's first batch",
    "reached": "of which: until the worker begins the next trial",
    "begun": "of which: beginning it",
    "model": "and of that: `Training.begin`, the model and its optimizer",
    "first_report": "of which: reporting that it has begun, until the first epoch",
}


class Timed(ImageTrainable):
    """Notes, in a line per trial, when the trial before ended and when this one's first epoch began."""

    ended_time, model_seconds = 0.0, 0.0

    def step(self) -> dict[str, Any]:
        """Begin or train, and remember when that was done."""
        result = super().step()
        self.ended_time = time.time()
        return result

    def _begin(self) -> dict[str, Any]:
        self.previous_time, self.begun_time = self.ended_time, time.time()
        if self.training is not None:
            original = type(self.training).begin

            def begin(*given: Any, **named: Any) -> None:
                start = time.perf_counter()
                original(self.training, *given, **named)
                self.model_seconds = time.perf_counter() - start

            self.training.begin = begin
        return super()._begin()

    def _epoch(self) -> dict[str, Any]:
        now = time.time()
        note = {"handover": now - self.previous_time, "reached": self.begun_time - self.previous_time}
        note |= {"model": self.model_seconds, "begun": self.ended_time - self.begun_time}
        note |= {"first_report": now - self.ended_time, "same_worker": self.previous_time > 0}
        with open(self.folder / NOTES, "a") as file:
            file.write(json.dumps(note) + "\n")
        return super()._epoch()


def main() -> None:
    """Run 40 trials of one epoch on one slot, each with a model of its own, for each of two methods."""
    keep = options(__doc__).parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        parameters = {
            "needs": Needs(str(_cache(Path(scratch))), {}),
            "settings": {"cnn": Settings().to_json()},
            "checkpoint_seconds": 30.0,
        }
        found = {method: _notes(method, Path(scratch, method), parameters) for method in METHODS}
    rows = [
        (what, *(Figures(tuple(1000 * note[name] for note in notes)) for notes in found.values()))
        for name, what in PARTS.items()
    ]
    text = table(("", *(f"{method}, ms" for method in METHODS)), rows)
    text += f"\n\nMedian (min–max) over {min(map(len, found.values()))} handovers on one slot; trials of one epoch of "
    text += f"plain CNNs of three blocks, fp32, on {CLASSES * PER_CLASS} made images of 32 x 32. In between are the "
    text += "proposal, the ledger, TensorBoard and Ray Tune."
    tell("handover.py", "From one trial to the next", text, keep)


def _notes(method: str, folder: Path, parameters: dict[str, Any]) -> list[dict[str, float]]:
    """Return what the workers of a search noted, from the first trial on that a method with a model proposes."""
    folder.mkdir()
    run(Timed, method, TRIALS, 1, 1, parameters, folder, {"depth": 3})
    notes = [json.loads(line) for line in (folder / NOTES).read_text().splitlines()]
    return [note for note in notes if note["same_worker"]][STARTUP:]


def _cache(scratch: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(CLASSES * PER_CLASS):
        target = scratch / "data" / f"class{number % CLASSES}" / f"{number:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(".png", rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))[1].tobytes())
    os.environ["CONVSCOUT_CACHE"] = str(scratch / "cache")
    return prepare(str(scratch / "data")).folder


if __name__ == "__main__":
    main()
