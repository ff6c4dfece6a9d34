"""The trials as a table: a row per trial, derived from the history; shown, and written as `trials.csv`."""

import csv
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster.history import History
from cluster.record import TrialRecord
from foundation import cell, written_beside


def trial_row(record: TrialRecord, metric: str) -> dict[str, Any]:
    """Return what one trial came to; `val_loss` and `val_accuracy` are those of its best epoch by `metric`."""
    best = record.best_epoch(metric) or {}
    speeds = [row["images_per_second"] for row in record.epochs if row["images_per_second"]]
    return {
        "trial": record.trial,
        "role": record.role,
        "architecture": record.architecture,
        "method": record.method,
        "status": record.status or ("running" if record.attempts else "waiting"),
        "stop_reason": record.stop_reason,
        "error": record.error,
        "rung": record.rung,
        "epochs_run": len(record.epochs),
        "epochs": record.work["epochs"],
        "best_epoch": best.get("epoch"),
        "val_loss": best.get("val_loss"),
        "val_accuracy": best.get("val_accuracy"),
        metric: best.get(metric),
        "n_params": record.n_params,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "peak_memory_mb": max((row["peak_memory_mb"] for row in record.epochs if row["peak_memory_mb"]), default=None),
        "seconds": round(record.seconds(), 3),
        "seed": record.seed,
    }


def write_trials_csv(path: Path, records: Iterable[TrialRecord], metric: str) -> None:
    """Write `trials.csv`: a row per trial, its configuration in columns `config/...`; no cell is a formula."""
    rows = [
        trial_row(record, metric) | {f"config/{name}": value for name, value in record.config.items()}
        for record in records
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with written_beside(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writerow({name: cell(name) for name in columns})
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)


def run_row(name: str, history: History) -> dict[str, Any]:
    """Return an experiment as a row of the list of experiments."""
    searched = history.of_role("search")
    return {
        "experiment": name,
        "trials": len([record for record in searched if not record.live]),
        "of": history.trials_wanted,
        "failed": len([record for record in searched if record.failed]),
        "minutes": round(history.seconds.total() / 60, 1),
        "analysed": "yes" if history.tests_opened else "no",
    }
