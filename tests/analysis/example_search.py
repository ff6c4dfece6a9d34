"""A search as a ledger would hold it: real spaces and real stopping rules, scores from a seeded generator."""

import math
import random
from typing import Any

import spaces
from cluster.history import History
from cluster.proposal import Decision
from search.halving import Halving, out_of_patience

ARCHITECTURES = ("mobilenet_v2", "cnn")
SPACES = {name: spaces.load(name) for name in sorted(ARCHITECTURES)}
EPOCHS, PATIENCE = 30, 8
SECONDS_AN_EPOCH = 4.0
BEST, RUNS_OUT_OF_MEMORY, DIVERGES, OUT_OF_TIME = 3, 9, 7, 39
# From this trial on, those of one architecture crowd at the end of a range, as TPE's would.
CROWDS, CROWDED = 16, "mobilenet_v2"


class ExampleSearch:
    """Trials one after the other; of 40, one is planted as the best, one diverges, one never gets to an epoch and
    one is stopped by the time budget."""

    def __init__(self, n_trials: int = 40, seed: int = 7) -> None:
        self.history = History()
        self.time = 1_000_000.0
        self.rng = random.Random(seed)
        self.halving = Halving("val_accuracy", EPOCHS)
        for trial in range(n_trials):
            self._run(trial)

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        row = {"seq": self.history.last_seq + 1, "time": self.time, "incarnation": 1, "event": event, **fields}
        self.history.apply(row)
        return row

    def _run(self, trial: int) -> None:
        space = SPACES[ARCHITECTURES[trial % 2]]
        baseline = trial < 2
        config = dict(space.baseline) if baseline else space.draw(self.rng)
        if trial >= CROWDS and space.architecture == CROWDED:
            config["learning_rate"] = 0.03 * 10 ** -abs(self.rng.gauss(0, 0.05))
        if trial == BEST:
            config |= {"learning_rate": 0.0123, "optimizer": "sgd", "momentum": 0.9, "activation": "gelu"}
        work, method = {"epochs": EPOCHS}, "baseline" if baseline else "tpe_asha"
        fields = {"architecture": space.architecture, "config": config, "seed": trial, "work": work, "method": method}
        self.write("proposed", trial=trial, role="search", **fields)
        self.write("started", trial=trial, attempt=1, n_params=1_234_567)
        if trial == RUNS_OUT_OF_MEMORY:
            self.write("ended", trial=trial, status="out_of_memory", error="CUDA out of memory: 2 attempts failed")
            return
        best = 0.83 if trial == BEST else quality(config, self.rng)
        for epoch in range(1, EPOCHS + 1):
            if self._epoch(trial, epoch, best):
                return
        self.write("ended", trial=trial, status="completed", stop_reason=f"all {EPOCHS} epochs")

    def _epoch(self, trial: int, epoch: int, best: float) -> bool:
        """Run an epoch; tell whether it was the trial's last, for another reason than their number."""
        self.time += SECONDS_AN_EPOCH
        diverged = trial == DIVERGES and epoch == 2
        accuracy = best * (1 - math.exp(-epoch / 5)) + self.rng.gauss(0, 0.005)
        figures = {"val_accuracy": accuracy, "val_loss": 2.4 * (1 - accuracy)}
        row = self.write(
            "epoch",
            trial=trial,
            attempt=1,
            epoch=epoch,
            **dict.fromkeys(figures) if diverged else figures,
            seconds=SECONDS_AN_EPOCH,
            images_per_second=400.0,
            peak_memory_mb=None,
        )
        record = self.history.trials[trial]
        if diverged:
            self.write("ended", trial=trial, status="diverged", error="the training loss is not finite")
            return True
        decision = self.halving.decide(self.history, record, row) or out_of_patience(record, row, PATIENCE)
        if trial == OUT_OF_TIME and epoch == 2:
            decision = Decision(True, "stopped at epoch 2: the time budget is used up", cause="budget")
        if decision:
            kept = {"sentence": decision.sentence, "rung": decision.rung, "status": decision.status}
            verdict = "stop" if decision.stop else "continue"
            self.write("decision", trial=trial, epoch=epoch, decision=verdict, cause=decision.cause, **kept)
        if decision and decision.stop:
            self.write("ended", trial=trial, status=decision.status, stop_reason=decision.sentence)
        return bool(decision and decision.stop)


def quality(config: dict[str, Any], rng: random.Random) -> float:
    """Return the accuracy that a configuration would reach: best at the highest learning rate of the range."""
    rate = (math.log10(config["learning_rate"]) + 4) / 2.5
    return 0.5 + 0.2 * rate + 0.03 * (config["optimizer"] == "sgd") + rng.gauss(0, 0.02)
