"""A run made of rows alone: what the ledger and the dispatcher would write, shown to observers."""

from typing import Any

from cluster.history import History
from cluster.record import Row

CONFIG = {"learning_rate": 0.01, "optimizer": "adam", "batch_size": 64, "batch_norm": True, "momentum": None}


class ObservedRun:
    def __init__(self, *observers: Any, trials: int = 20, time: float = 1_700_000_000.0) -> None:
        self.observers, self.history = list(observers), History()
        self.time, self.incarnation = time, 1
        self.write("experiment", spec_hash="0", trials=trials, name="demo")

    def write(self, event: str, **fields: Any) -> Row:
        self.time += 1
        row = {"seq": self.history.last_seq + 1, "time": self.time, "incarnation": self.incarnation, "event": event}
        row |= fields
        self.history.apply(row)
        for observer in self.observers:
            observer.observe(row, self.history)
        return row

    def resume(self, *observers: Any) -> None:
        """Go on as a new driver does: other observers, the same history."""
        self.observers, self.incarnation = list(observers), self.incarnation + 1

    def begin(self, architecture: str = "cnn", role: str = "search", epochs: int = 10, **config: Any) -> int:
        trial = self.history.next_trial()
        fields = {"architecture": architecture, "role": role, "seed": trial, "work": {"epochs": epochs}}
        self.write("proposed", trial=trial, config=CONFIG | config, seen=0, method="random", draw=0, **fields)
        self.start(trial)
        return trial

    def start(self, trial: int, attempt: int = 1) -> None:
        self.write("started", trial=trial, attempt=attempt, host="here", pid=1, n_params=10, start_from=None)

    def epoch(self, trial: int, val_accuracy: float | None = 0.5, seconds: float = 2.0, **fields: Any) -> Row:
        record = self.history.trials[trial]
        row = {
            "attempt": record.attempts,
            "epoch": len(record.epochs) + 1,
            "train_loss": 1.5,
            "train_accuracy": 0.75,
            "val_loss": None if val_accuracy is None else 2 - val_accuracy,
            "val_accuracy": val_accuracy,
            "val_balanced_accuracy": val_accuracy,
            "val_macro_f1": val_accuracy,
            "learning_rate": 0.01,
            "seconds": seconds,
            "images_per_second": 1234.5,
            "peak_memory_mb": 100.0,
        }
        return self.write("epoch", trial=trial, **row | fields)

    def end(self, trial: int, status: str = "completed", reason: str | None = None, error: str | None = None) -> Row:
        return self.write("ended", trial=trial, status=status, stop_reason=reason, error=error)
