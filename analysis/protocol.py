"""The protocol of an analysis, in its order: retrain, epochs, final training, the choice, the test, the report.

Each step is in the ledger, so an interrupted analysis goes on where it was. `chosen` is written before
`test_opened`, and what the test says changes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.deploy import write_model
from analysis.epochs import EpochChoice, choose_epochs
from analysis.evaluate import restored, test_figures
from analysis.experiment import Experiment, open_experiment
from analysis.metrics import over_seeds
from analysis.report import write_report
from analysis.retrain import final_work, retrain_work, train_all
from analysis.select import Contender, contenders
from cluster.history import METRICS, TrialRecord
from cluster.ledger import Ledger
from cluster.storage import trial_folder, versions
from cluster.table import write_trials_csv
from foundation import RequestError, write_json
from trainables import checkpoint
from trainables.models import Classifier
from trainables.recipe import split

ANALYSIS, REPORT, MODEL = "analysis.json", "report.html", "model"
FORMAT = 1
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")

Json = dict[str, Any]


def analyze(folder: Path, *, seeds: int = 3, quiet: bool = False) -> Json:
    """Run the whole protocol on an experiment and return what it wrote to `analysis.json`.

    `seeds` is the number of runs of each contender. Raises `RequestError` when there is nothing to analyse, and
    KeyboardInterrupt when it was interrupted; the same call goes on.
    """
    if seeds < 1:
        raise RequestError(f"--seeds {seeds}: one at least")
    with Ledger(folder) as ledger:
        experiment = open_experiment(folder, ledger.history)
        analysis: Json = {
            "format": FORMAT,
            "experiment": experiment.provenance(),
            "search": experiment.search_results(),
            "tests_opened": len(ledger.history.tests_opened),
        }
        chosen_from = contenders(ledger.history, experiment.metric)
        seed = experiment.spec["seed"]
        runs = train_all(retrain_work(chosen_from, seeds, seed), ledger, quiet)
        found = [_retrained(contender, runs, experiment.metric) for contender in chosen_from]
        sound = [each for each in found if each.choice is not None]
        analysis["contenders"] = [each.to_json() for each in found]
        if not sound:
            _write(folder, analysis, ledger)
            raise RequestError(
                f"none of the contenders finished a retraining, so there is no model: {folder / REPORT} says why"
            )
        work = [
            proposal for each in sound for proposal in final_work(each.contender, each.sound_runs, each.epochs, seed)
        ]
        finals = train_all(work, ledger, quiet)
        _choose_and_test(experiment, ledger, analysis, sound, finals)
        _write(folder, analysis, ledger)
    return analysis


class Retrained:
    """A contender with its retrained runs, and the number of epochs they call for (None if none of them is sound)."""

    def __init__(self, contender: Contender, runs: Sequence[TrialRecord], metric: str) -> None:
        self.contender, self.runs, self.metric = contender, runs, metric
        self.sound_runs = [run for run in runs if run.status == "completed"]
        curves = [[row["val_loss"] for row in run.epochs] for run in self.sound_runs]
        self.choice: EpochChoice | None = choose_epochs(curves) if curves else None

    @property
    def epochs(self) -> int:
        """The chosen number of epochs."""
        assert self.choice is not None
        return self.choice.epochs

    def at_chosen_epoch(self, metric: str) -> dict[str, Any]:
        """Return a validation metric at the chosen epoch, over seeds."""
        values = [run.epochs[self.epochs - 1][metric] for run in self.sound_runs]
        return over_seeds(values, proportion=metric != "val_loss")

    def to_json(self) -> Json:
        """Return the contender as `analysis.json` keeps it, without its test figures."""
        row = self.contender.to_json() | {"epochs": self.choice and asdict(self.choice)}
        row["curves"] = [
            {"trial": run.trial, "seed": run.seed, "status": run.status, "error": run.error}
            | {name: [epoch[name] for epoch in run.epochs] for name in CURVES}
            for run in self.runs
        ]
        if self.choice:
            row["validation"] = {name: self.at_chosen_epoch(name) for name in METRICS}
        return row


def _retrained(contender: Contender, runs: Sequence[TrialRecord], metric: str) -> Retrained:
    return Retrained(contender, [run for run in runs if run.work["of"] == contender.record.trial], metric)


def _choose_and_test(
    experiment: Experiment, ledger: Ledger, analysis: Json, sound: list[Retrained], finals: list[TrialRecord]
) -> None:
    """Choose by validation and write it down; then open the test split, once; then let the chosen model ship."""
    of = {each.contender.name: _finished(each, finals) for each in sound}
    tested = [each for each in sound if of[each.contender.name]]
    if not tested:
        raise RequestError("no final training finished, so there is no model: `convscout show` lists what happened")
    winner = _winner(tested, experiment.metric)
    shipped = of[winner.contender.name][0]
    analysis["chosen"] = {
        "contender": winner.contender.name,
        "why": _why(winner, tested, experiment.metric),
        "trial": shipped.trial,
        "seed": shipped.seed,
    }
    history, before = ledger.history, _read_before(experiment.folder)
    tests = {name: [record.trial for record in records] for name, records in of.items()}
    rows = {row["name"]: row for row in analysis["contenders"]}
    for each in tested:
        rows[each.contender.name]["finals"] = [
            {"trial": record.trial, "seed": record.seed, "epochs": each.epochs} for record in of[each.contender.name]
        ]
    if history.tests_opened and history.tests_opened[-1]["finals"] == tests and before:
        for row in before["contenders"]:  # the same models were tested before: the split stays closed
            rows[row["name"]] |= {name: row[name] for name in ("test", "shipped_test") if name in row}
        return
    models = {name: [_load(experiment, record) for record in records] for name, records in of.items()}
    ledger.append("chosen", **analysis["chosen"])
    ledger.append("test_opened", finals=tests)
    cache = experiment.cache()
    for name, figures in test_figures(models, cache.folder, cache.classes).items():
        rows[name] |= figures
    analysis["tests_opened"] = len(history.tests_opened)
    _ship(experiment, analysis, shipped, models[winner.contender.name][0], rows[winner.contender.name])


def _finished(each: Retrained, finals: list[TrialRecord]) -> list[TrialRecord]:
    trial = each.contender.record.trial
    return [record for record in finals if record.work["of"] == trial and record.status == "completed"]


def _winner(tested: list[Retrained], metric: str) -> Retrained:
    """Return the contender with the best mean of the metric at its chosen epoch; the first of equals."""
    return max(tested, key=lambda each: METRICS[metric] * each.at_chosen_epoch(metric)["mean"])


def _why(winner: Retrained, tested: list[Retrained], metric: str) -> str:
    def figure(each: Retrained) -> str:
        found = each.at_chosen_epoch(metric)
        runs = f"{found['n']} runs" if found["n"] > 1 else "1 run"
        return f"{each.contender.name} {found['mean']:.4f} after {each.epochs} epochs ({runs})"

    others = ", ".join(figure(each) for each in tested if each is not winner)
    against = f" against {others}" if others else ", the only contender"
    return f"best mean {metric} on the validation images: {figure(winner)}{against}"


def _load(experiment: Experiment, record: TrialRecord) -> Classifier:
    """Return the final model of a trial from its last checkpoint."""
    folder = trial_folder(experiment.folder, record.trial) / "checkpoint"
    kept = checkpoint.load(folder)
    if kept.state is None:
        raise RequestError(f"{folder} holds no sound checkpoint of trial {record.trial}: {'; '.join(kept.damaged)}")
    source = experiment.asked["sources"].get(record.architecture)
    weights = kept.state["training"]["model"]
    return restored(record.architecture, record.config, experiment.cache(), weights, source)


def _ship(experiment: Experiment, analysis: Json, record: TrialRecord, model: Classifier, row: Json) -> None:
    cache, asked = experiment.cache(), analysis["experiment"]
    _, knobs = split(record.config)
    counts = {name: sum(of_class.values()) for name, of_class in cache.counts.items()}
    card = {
        "architecture": record.architecture,
        "image_shape": list(cache.image_shape),
        "classes": list(cache.classes),
        "config": knobs,
        "mean": list(cache.mean),
        "deviation": list(cache.deviation),
        "resize": cache.resize,
        "metrics": row["test"],
        "trained_on": {
            "data": asked["data"],
            "fingerprint": asked["fingerprint"],
            "images": counts["train"] + counts["val"],
            "epochs": record.work["epochs"],
            "seed": record.seed,
            "experiment": asked["name"],
            "trial": record.trial,
        },
        "versions": versions(),
        "source": experiment.asked["sources"].get(record.architecture),
    }
    write_model(experiment.folder / MODEL, model, card)


def _read_before(folder: Path) -> Json | None:
    path = folder / ANALYSIS
    return read_analysis(folder) if path.exists() else None


def read_analysis(folder: Path) -> Json:
    """Return what `analysis.json` holds; raises `RequestError` when it is missing or damaged."""
    path = folder / ANALYSIS
    try:
        analysis: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read ({error}): `convscout analyze {folder.name}` writes it") from error
    return analysis


def _write(folder: Path, analysis: Json, ledger: Ledger) -> None:
    write_json(folder / ANALYSIS, analysis)
    write_report(analysis, folder / REPORT)
    write_trials_csv(folder / "trials.csv", ledger.history.trials.values(), analysis["experiment"]["metric"])
