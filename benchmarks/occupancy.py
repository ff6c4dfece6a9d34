"""How much of the slots' time is trials, where each computes for one second and keeps checkpoints."""

import json
import multiprocessing
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from launches import epoch_row, handed_out, run, started_row
from measure import Figures, options, table, tell
from ray.tune import Trainable

from cluster.ledger import LEDGER

SLOTS, EPOCHS, EPOCH_SECONDS = 2, 2, 0.5
MATRIX = 256
STATE_MB = 1


class Busy(Trainable):  # type: ignore[misc]
    """Multiplies matrices for half a second an epoch, and writes a checkpoint of 1 MB after each."""

    def setup(self, config: dict[str, Any], folder: str = "") -> None:
        """Keep what is the same for all trials."""
        import torch

        from trainables.checkpoint import Writer

        torch.set_num_threads(1)
        self.folder, self.writer, self.weights = Path(folder), Writer(), torch.rand(STATE_MB * 250_000)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial."""
        self.given, self.begun, self.epochs_done = handed_out(new_config), False, 0
        return True

    def cleanup(self) -> None:
        """End with nothing half written."""
        self.writer.drop()

    def step(self) -> dict[str, Any]:
        """Say that the trial has begun, or compute an epoch and report it with when it was."""
        attempt = self.given["attempt"]
        if not self.begun:
            self.begun = True
            self.writer.begin(Path(self.given["checkpoints"]), attempt, "busy")
            return {"report": json.dumps(started_row(attempt))}
        began = time.time()
        products = multiply(EPOCH_SECONDS)
        self.epochs_done += 1
        ended = time.time()
        self.writer.submit(self.epochs_done, {"weights": self.weights, "epochs_done": self.epochs_done})
        done = self.writer.collect() if self.epochs_done < EPOCHS else self.writer.finish()
        row = epoch_row(self.epochs_done, ended - began)
        row |= {"began": began, "products": products, "kept_seconds": time.time() - ended}
        saved = [
            {"epoch": each.epoch, "path": str(each.path.relative_to(self.folder)), "sha256": each.sha256}
            for each in done
        ]
        return {"report": json.dumps({"kind": "epoch", "attempt": attempt, "epoch": row, "checkpoints": saved})}


def multiply(seconds: float) -> int:
    """Return how many products of two matrices one thread finishes in so many seconds."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    end, products = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        torch.mm(a, b)
        products += 1
    return products


def main() -> None:
    """Run the trials once on two slots, and tell."""
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=200, help="of one second each")
    asked = parser.parse_args()
    before = _undisturbed()
    with tempfile.TemporaryDirectory() as scratch:
        history = run(Busy, "tpe", asked.trials, EPOCHS, SLOTS, {}, folder=Path(scratch))
        kept = Path(scratch, LEDGER).read_text().count('"event": "checkpoint"')
    undisturbed = (before + _undisturbed()) / 2
    records = [record for record in history.trials.values() if len(record.epochs) == EPOCHS]
    start = min(record.started[0]["time"] for record in records)
    wall = max(record.ended_time or 0.0 for record in records) - start
    computed = sum(row["seconds"] for record in records for row in record.epochs)
    products = sum(row["products"] for record in records for row in record.epochs)
    between, within = _gaps(records)
    waits = [1000 * record.epochs[-1]["kept_seconds"] for record in records]
    rows = [
        ("wall time, first start to last end, s", f"{wall:.1f}"),
        ("trials' epochs, % of slots x wall time", f"{100 * computed / (SLOTS * wall):.1f}"),
        ("products finished, % of two undisturbed processes'", f"{100 * products / (undisturbed * wall):.1f}"),
        ("worker processes", len({record.started[-1]["pid"] for record in records})),
        ("gap between two trials of a worker, ms", between),
        ("of which waiting for the last checkpoint, ms", Figures(tuple(waits))),
        ("gap between two epochs of a trial, ms", within),
    ]
    text = table((f"{len(records)} trials", ""), rows)
    text += f"\n\nOne run; gaps: median (min–max). {EPOCHS} epochs of {EPOCH_SECONDS} s a trial, busy with products of "
    text += f"{MATRIX} x {MATRIX} on one thread; {SLOTS} slots; {STATE_MB} MB kept after each epoch, the last of "
    text += f"a trial waited for ({kept} in the ledger); configurations of the plain CNN proposed by TPE; TensorBoard "
    text += "on. Undisturbed: two processes beside each other, before and after."
    tell(f"occupancy.py --trials {asked.trials}", "How busy the slots are", text, asked.keep)


def _gaps(records: list[Any]) -> tuple[Figures, Figures]:
    """Return in ms how long workers did not compute: between two trials, and between the epochs of one."""
    by_worker: dict[int, list[list[dict[str, Any]]]] = {}
    for record in sorted(records, key=lambda each: each.epochs[0]["began"]):
        by_worker.setdefault(record.started[-1]["pid"], []).append(record.epochs)
    pairs = [(a[-1], b[0]) for trials in by_worker.values() for a, b in pairwise(trials)]
    inside = [pair for record in records for pair in pairwise(record.epochs)]
    between, within = (
        Figures(tuple(1000 * (late["began"] - early["began"] - early["seconds"]) for early, late in found))
        for found in (pairs, inside)
    )
    return between, within


def _undisturbed() -> float:
    """Return the products a second of one process a slot, with nothing else to do."""
    with multiprocessing.get_context("spawn").Pool(SLOTS) as pool:
        pool.map(multiply, [1.0] * SLOTS, chunksize=1)  # imports
        return sum(pool.map(multiply, [3.0] * SLOTS, chunksize=1)) / 3.0


if __name__ == "__main__":
    main()
