"""Trials that do nothing, through convscout and through Ray Tune alone."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from measure import Figures, interleaved, options, ratios, table, tell

REPORTS, SLOTS = 10, 2


def main() -> None:
    """Compare in turn, each run in a process of its own; `--trials 10000 --reports 1 --rounds 1` shows that many."""
    parser = options(__doc__)
    parser.add_argument("--side", choices=("ours", "ray"), help="run one side once, and print its figures as JSON")
    parser.add_argument("--trials", type=int, default=200, help="a turn of each side")
    parser.add_argument("--reports", type=int, default=REPORTS, help="of a trial")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps({"ours": _ours, "ray": _ray}[asked.side](asked.trials, asked.reports)))
        return
    memory: dict[str, list[float]] = {"ours": [], "ray": []}

    def side(name: str) -> float:
        command = [sys.executable, __file__, "--side", name]
        command += ["--trials", str(asked.trials), "--reports", str(asked.reports)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        memory[name].append(figures["kilobytes_a_trial"])
        return float(figures["seconds"])

    found = interleaved({name: (lambda name=name: side(name)) for name in ("ours", "ray")}, asked.rounds, before=0)
    rows = [
        (name, found[name], _per_trial(found[name], asked.trials), Figures(tuple(memory[name])))
        for name in ("ours", "ray")
    ]
    rows.append(("ours / ray", ratios(found["ours"], found["ray"]), "", ""))
    text = table(("", "seconds", "ms a trial", "driver's memory, KB a trial"), rows)
    text += f"\n\n{asked.trials} trials of {asked.reports} reports each on {SLOTS} slots, median (min–max) of "
    text += f"{asked.rounds} in turn; a process each; Ray's start is not counted."
    text += " Ours draws configurations of the plain CNN at random, looks whether each can be built, and writes the "
    text += "ledger and TensorBoard's events; Ray Tune draws one number, has no loggers, takes no snapshots while it "
    text += "runs, has a cluster without dashboard as ours, and is otherwise as it comes."
    fewer = "" if asked.reports == REPORTS else f" --reports {asked.reports}"
    tell(f"overhead.py --trials {asked.trials}{fewer}", "Trials that do nothing", text, asked.keep)


def _per_trial(seconds: Figures, trials: int) -> Figures:
    return Figures(tuple(value / trials * 1000 for value in seconds.values))


def _peak_kb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _ours(trials: int, reports: int) -> dict[str, Any]:
    from launches import epoch_row, handed_out, run, started_row
    from ray.tune import Trainable

    class Idle(Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any], folder: str = "") -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.attempt, self.done = handed_out(new_config)["attempt"], 0
            return True

        def step(self) -> dict[str, Any]:
            if not self.done:
                self.done = 1
                return {"report": json.dumps(started_row(self.attempt))}
            report = {"kind": "epoch", "attempt": self.attempt, "epoch": epoch_row(self.done, 0.01)}
            self.done += 1
            return {"report": json.dumps(report)}

    run(Idle, "random", SLOTS, 1, SLOTS, {})  # imports, and the first workers
    before, start = _peak_kb(), time.perf_counter()
    run(Idle, "random", trials, reports, SLOTS, {})
    return {"seconds": time.perf_counter() - start, "kilobytes_a_trial": (_peak_kb() - before) / trials}


def _ray(trials: int, reports: int) -> dict[str, Any]:
    from launches import connect
    from ray import tune

    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000"  # no snapshots while it runs, which would be slower
    connect()

    class Idle(tune.Trainable):  # type: ignore[misc]
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, Any]:
            return {"val_accuracy": 0.5}

    def fit(count: int, steps: int) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            tuner = tune.Tuner(
                tune.with_resources(Idle, {"cpu": 1}),
                param_space={"learning_rate": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(num_samples=count, reuse_actors=True),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    verbose=0,
                    stop={"training_iteration": steps},
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )
            start = time.perf_counter()
            tuner.fit()
            return time.perf_counter() - start

    fit(SLOTS, 1)
    before = _peak_kb()
    seconds = fit(trials, reports)
    return {"seconds": seconds, "kilobytes_a_trial": (_peak_kb() - before) / trials}


if __name__ == "__main__":
    main()
