"""The protocol of an analysis, in its order: retrain, epochs, final training, the choice, the test, the report.

Each step is in the ledger, so an interrupted analysis goes on where it was. `chosen` is written before
`test_opened`, and what the test says changes nothing.
"""

import json
from pathlib import Path
from typing import Any

from analysis.contest import Contestant, winner
from analysis.deploy import write_model
from analysis.evaluate import restored, test_figures
from analysis.experiment import MODEL, Experiment, open_experiment
from analysis.report import write_report
from analysis.retrain import Plan, found, train
from analysis.select import contenders
from analysis.troubles import recorded_troubles
from cluster.history import TrialRecord
from cluster.ledger import Ledger
from cluster.lock import Lock
from cluster.session import Tell, note_resumed
from cluster.storage import checkpoint_folder, run_argument, versions
from cluster.table import write_trials_csv
from foundation import RequestError, fault, write_json
from trainables import checkpoint
from trainables.models import Classifier
from trainables.recipe import split

ANALYSIS, REPORT = "analysis.json", "report.html"
FORMAT = 1

Json = dict[str, Any]


def analyze(
    folder: Path,
    *,
    lock: Lock | None = None,
    seeds: int = 3,
    reopen_test: bool = False,
    quiet: bool = False,
    tell: Tell = lambda _: None,
) -> Json:
    """Run the whole protocol on an experiment and return what it wrote to `analysis.json`.

    `seeds` is the number of runs of each contender. Where the test images were opened before, for other models,
    `reopen_test` allows to open them again: the figures are then no longer those of images that nobody has seen.
    Raises `RequestError` when there is nothing to analyse, and KeyboardInterrupt when it was interrupted; the same
    call goes on.
    """
    if seeds < 1:
        raise RequestError(f"--seeds {seeds}: at least 1 is needed")
    with Ledger(folder, lock) as ledger:
        experiment = open_experiment(folder, ledger.history)
        finalists = contenders(ledger.history, experiment.metric)
        plan = Plan(finalists, seeds, experiment.spec["seed"])
        if not reopen_test:
            _refuse_to_reopen(ledger, plan)
        note_resumed(ledger, experiment.asked, tell)
        train(plan, ledger, quiet)
        contestants = [plan.contestant(ledger.history, contender) for contender in finalists]
        analysis: Json = {
            "format": FORMAT,
            "experiment": experiment.provenance(),
            "search": experiment.search_results(),
            "troubles": recorded_troubles(ledger.history),
            "contenders": [each.to_json() for each in contestants],
            "tests_opened": len(ledger.history.tests_opened),
        }
        finals = {
            each.name: [
                record
                for record in found(ledger.history, plan.final_trainings(ledger.history, each.contender))
                if record.status == "completed"
            ]
            for each in contestants
        }
        tested = [each for each in contestants if finals[each.name]]
        if tested:
            _choose_and_test(experiment, ledger, analysis, tested, finals)
        _write(folder, analysis, ledger)
    if not tested:
        raise RequestError(f"no final training finished, so there is no model: {folder / REPORT} says why")
    return analysis


def _refuse_to_reopen(ledger: Ledger, plan: Plan) -> None:
    """Raise `RequestError` if the test images were opened before, for other models than the plan asks for."""
    if ledger.history.tests_opened and plan.next_work(ledger.history):
        raise RequestError(
            f"the test images of {ledger.path.parent.name} were opened before, for other models than this asks for "
            f"({plan.seeds} seeds of what is best now): opened again, they are no longer unseen. Ask as before, or "
            "say --reopen-test"
        )


def _choose_and_test(
    experiment: Experiment,
    ledger: Ledger,
    analysis: Json,
    contestants: list[Contestant],
    finals: dict[str, list[TrialRecord]],
) -> None:
    """Choose by validation and write it down; then open the test split, once; then let the chosen model ship."""
    best, why = winner(contestants, experiment.metric)
    shipped = finals[best.name][0]
    analysis["chosen"] = {"contender": best.name, "why": why, "trial": shipped.trial, "seed": shipped.seed}
    rows = {row["name"]: row for row in analysis["contenders"]}
    for each in contestants:
        rows[each.name]["finals"] = [
            {"trial": record.trial, "seed": record.seed, "epochs": each.epochs} for record in finals[each.name]
        ]
    trials = {each.name: [record.trial for record in finals[each.name]] for each in contestants}
    opened = ledger.history.tests_opened
    if opened and opened[-1]["finals"] == trials and (before := _figures_before(experiment.folder, trials)):
        for name, figures in before.items():  # these very models were tested: the split stays closed
            rows[name] |= figures
        return
    models = {name: [_load(experiment, record) for record in finals[name]] for name in trials}
    if not (opened and opened[-1]["finals"] == trials):  # else it was opened for them, and then the process died
        ledger.append("chosen", **analysis["chosen"])
        ledger.append("test_opened", finals=trials)
    fault("analysis.test_opened")
    analysis["tests_opened"] = len(opened)
    cache = experiment.cache()
    for name, figures in test_figures(models, cache.folder, cache.classes).items():
        rows[name] |= figures
    _ship(experiment, analysis, shipped, models[best.name][0], rows[best.name])


def _figures_before(folder: Path, trials: dict[str, list[int]]) -> dict[str, Json] | None:
    """Return the test figures that `analysis.json` has of these final trainings, or None if it lacks any."""
    if not (folder / ANALYSIS).exists():
        return None
    rows = {row["name"]: row for row in read_analysis(folder)["contenders"]}
    if any([final["trial"] for final in rows.get(name, {}).get("finals", ())] != trials[name] for name in trials):
        return None
    if not all("test" in rows[name] for name in trials) or not (folder / MODEL).is_dir():
        return None
    return {name: {key: rows[name][key] for key in ("test", "shipped_test")} for name in trials}


def _load(experiment: Experiment, record: TrialRecord) -> Classifier:
    """Return the final model of a trial from its last checkpoint."""
    folder = checkpoint_folder(experiment.folder, record.trial)
    kept = checkpoint.load(folder)
    if kept.state is None:
        raise RequestError(f"{folder} holds no sound checkpoint of trial {record.trial}: {'; '.join(kept.damaged)}")
    source = experiment.asked["sources"].get(record.architecture)
    weights = kept.state["training"]["model"]
    return restored(record.architecture, record.config, experiment.cache(), weights, source)


def _ship(experiment: Experiment, analysis: Json, record: TrialRecord, model: Classifier, tested: Json) -> None:
    cache, asked = experiment.cache(), analysis["experiment"]
    _, knobs = split(record.config)
    by_class = {name: cache.counts["train"][name] + cache.counts["val"][name] for name in cache.classes}
    card = {
        "architecture": record.architecture,
        "image_shape": list(cache.image_shape),
        "classes": list(cache.classes),
        "config": knobs,
        "mean": list(cache.mean),
        "deviation": list(cache.deviation),
        "resize": cache.resize,
        "metrics": tested["test"] | {"by_class": tested["shipped_test"]["per_class"]},
        "trained_on": {
            "data": asked["data"],
            "fingerprint": asked["fingerprint"],
            "images": sum(by_class.values()),
            "images_by_class": by_class,
            "epochs": record.work["epochs"],
            "seed": record.seed,
            "experiment": asked["name"],
            "trial": record.trial,
        },
        "versions": versions(),
        "source": experiment.asked["sources"].get(record.architecture),
    }
    write_model(experiment.folder / MODEL, model, card)


def read_analysis(folder: Path) -> Json:
    """Return what `analysis.json` holds; raises `RequestError` when it is missing or damaged."""
    path = folder / ANALYSIS
    try:
        analysis: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read ({error}): `convscout analyze {run_argument(folder)}` writes it"
        ) from error
    if analysis.get("format") != FORMAT:
        raise RequestError(f"{path} has format {analysis.get('format')}; this version reads {FORMAT}")
    return analysis


def _write(folder: Path, analysis: Json, ledger: Ledger) -> None:
    write_json(folder / ANALYSIS, analysis)
    write_report(analysis, folder / REPORT)
    write_trials_csv(folder / "trials.csv", ledger.history.trials.values(), analysis["experiment"]["metric"])
