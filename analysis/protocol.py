"""The protocol of an analysis, in its order: retrain, epochs, final training, the choice, the test, the report.

Each step is in the ledger, so an interrupted analysis goes on where it was. `chosen` is written before
`test_opened`, and what the test says changes nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis.ablate import Ablations, check_knobs
from analysis.board import write_board
from analysis.contest import Contestant, winner
from analysis.evaluate import Predictions, read_predictions, test_comparisons, test_figures, test_predictions
from analysis.experiment import Experiment, open_experiment
from analysis.learned import learned
from analysis.report import write_report
from analysis.retrain import Plan, found, train
from analysis.seeds import best_group, seed_spread
from analysis.select import check_numbers, contenders
from analysis.ship import final_model, ship
from analysis.troubles import recorded_troubles
from cluster.ledger import Ledger
from cluster.lock import Lock
from cluster.naming import run_argument
from cluster.record import TrialRecord
from cluster.session import Tell, note_resumed
from cluster.table import write_trials_csv
from foundation import HaltError, RequestError, fault, write_json

ANALYSIS, REPORT, PREDICTIONS = "analysis.json", "report.html", "test_predictions.npz"
FORMAT = 4

Json = dict[str, Any]


def analyze(
    folder: Path,
    *,
    lock: Lock | None = None,
    finalists: int = 3,
    seeds: int = 3,
    folds: int = 0,
    ablate: Sequence[str] = (),
    retrain_workers: int = 1,
    reopen_test: bool = False,
    address: str | None = None,
    quiet: bool = False,
    tell: Tell = lambda _: None,
) -> Json:
    """Run the whole protocol on an experiment and return what it wrote to `analysis.json`.

    The best `finalists` configurations and every architecture's baseline are the contenders; each is trained with
    `seeds` fresh seeds, twice: on train alone, for the number of epochs, and then on train and validation together.
    With `folds` the first of these is a cross-validation over both, one run a fold. With `ablate`, the winner is also
    retrained with other values of these knobs. Each of the second trainings is done by `retrain_workers` together.
    `reopen_test` allows to open the test images again, for other models than before: images that nobody has seen they
    are no longer. It runs on the cluster of the last command, or at `address`. Raises `RequestError` when there is
    nothing to analyse or no room for the workers, and KeyboardInterrupt when it was interrupted; the same call goes on.
    """
    check_numbers(finalists, seeds, folds, retrain_workers, ablate)
    with Ledger(folder, lock) as ledger:
        experiment = open_experiment(folder, ledger.history)
        experiment.check_folds(folds)
        chosen = contenders(ledger.history, experiment.metric, finalists)
        check_knobs(ablate, chosen, experiment.spaces)
        plan = Plan(chosen, seeds, experiment.spec["seed"], folds, experiment.image_losses, retrain_workers)
        _refuse_to_reopen(ledger, plan, allowed=reopen_test)
        note_resumed(ledger, experiment.asked, tell)
        train(plan, ledger, quiet, tell, address)
        contestants = [plan.contestant(ledger.history, contender) for contender in chosen]
        tell("The trainings are done; what the search teaches is being worked out.")  # 3 s per architecture and rung
        analysis = _begun(experiment, ledger, contestants) | {"folds": folds}
        finals = {each.name: _finals(ledger, plan, each) for each in contestants}
        tested = [each for each in contestants if finals[each.name]]
        if tested:
            best, predictions = _choose_and_test(experiment, ledger, analysis, tested, finals)
            _show_on_board(ledger, analysis, predictions, tell)
        _write(folder, analysis, ledger)
        if tested and not folds and (ablations := _ablations(experiment, ledger, best, ablate)):
            ablations.train(ledger, quiet, tell, address)
            analysis["ablations"] = ablations.results(ledger.history, experiment)
            _write(folder, analysis, ledger)
    if not tested:
        raise HaltError(f"no final training finished, so there is no model: {folder / REPORT} says why")
    return analysis


def _begun(experiment: Experiment, ledger: Ledger, contestants: Sequence[Contestant]) -> Json:
    """Return what `analysis.json` holds before the choice."""
    return {
        "format": FORMAT,
        "experiment": experiment.provenance(),
        "search": experiment.search_results(),
        "learned": learned(experiment),
        "troubles": recorded_troubles(ledger.history),
        "contenders": [each.to_json() for each in contestants],
        "tests_opened": len(ledger.history.tests_opened),
    }


def _finals(ledger: Ledger, plan: Plan, contestant: Contestant) -> list[TrialRecord]:
    """Return the final trainings of a contestant that ended as they should, by seed."""
    asked = plan.final_trainings(ledger.history, contestant.contender)
    return [record for record in found(ledger.history, asked) if record.status == "completed"]


def _refuse_to_reopen(ledger: Ledger, plan: Plan, *, allowed: bool) -> None:
    """Raise `RequestError` if the test images were opened before, for other models than the plan asks for.

    Fewer of the same are others, too: opened for them, the test would be read once more.
    """
    history = ledger.history
    if allowed or not history.tests_opened:
        return
    if plan.next_work(history) or _final_trials(ledger, plan) != history.tests_opened[-1]["finals"]:
        raise RequestError(
            f"the test images of {ledger.path.parent.name} were opened before, for other models than this asks for "
            f"({plan.seeds} seeds of what is best now): opened again, they are no longer unseen. Ask as before, or "
            "say --reopen-test"
        )


def _final_trials(ledger: Ledger, plan: Plan) -> dict[str, list[int]]:
    """Return the final trainings of each contender that has any, by its name."""
    finals = {each.name: _finals(ledger, plan, plan.contestant(ledger.history, each)) for each in plan.contenders}
    return {name: [record.trial for record in records] for name, records in finals.items() if records}


def _choose_and_test(
    experiment: Experiment,
    ledger: Ledger,
    analysis: Json,
    contestants: list[Contestant],
    finals: dict[str, list[TrialRecord]],
) -> tuple[Contestant, Predictions]:
    """Choose by validation and write it down; then open the test split, once; then let the chosen model ship.

    Return who was chosen, and what the models said of the test images.
    """
    best, why = winner(contestants, experiment.metric)
    shipped = finals[best.name][0]
    analysis["chosen"] = {"contender": best.name, "why": why, "trial": shipped.trial, "seed": shipped.seed}
    if shipped.workers > 1:
        analysis["trained_by"] = shipped.workers
    trials = {each.name: [record.trial for record in finals[each.name]] for each in contestants}
    predictions = _tested(experiment, ledger, analysis["chosen"], trials, finals)
    analysis["tests_opened"] = len(ledger.history.tests_opened)
    rows = {row["name"]: row for row in analysis["contenders"]}
    classes = analysis["experiment"]["classes"]
    for each in contestants:
        rows[each.name]["finals"] = [
            {"trial": record.trial, "seed": record.seed, "epochs": each.epochs} for record in finals[each.name]
        ]
        rows[each.name] |= test_figures(predictions, trials[each.name], classes)
    analysis["alike"] = _alike(contestants, analysis["folds"])
    analysis["comparisons"] = test_comparisons(predictions, best.name, trials)
    analysis["worst"] = predictions.worst_rows(shipped.trial, classes)
    ship(experiment, shipped, final_model(experiment, shipped), rows[best.name])
    return best, predictions


def _show_on_board(ledger: Ledger, analysis: Json, predictions: Predictions, tell: Tell) -> None:
    """Write TensorBoard's images of the test; what only TensorBoard shows must not cost the analysis."""
    try:
        write_board(ledger.path.parent, ledger, analysis, predictions)
    except OSError as error:
        tell(f"TensorBoard shows no images of the test: they could not be written ({error}).")


def _alike(contestants: list[Contestant], folds: int) -> Json:
    """Return how much the seed alone changes the validation accuracy, and who cannot be told from the best for it.

    With folds that is not known: runs validate on other images, too.
    """
    accuracies = {each.name: each.at_chosen_epoch("val_accuracy")["values"] for each in contestants}
    if folds:
        accuracies = {name: [fmean(values)] for name, values in accuracies.items()}
    spread = seed_spread(accuracies)
    unknown = "how much the seed alone changes the accuracy is not known: with folds, runs differ by their images, too"
    group = list(best_group(accuracies))
    return {"sigma_seed": spread.sigma, "sentence": unknown if folds else spread.sentence, "group": group}


def _ablations(experiment: Experiment, ledger: Ledger, best: Contestant, knobs: Sequence[str]) -> Ablations | None:
    """Return who finds out what one knob at a time does to the chosen contender; None where nobody has asked for it.

    Not with folds: the winner's runs are then of other images than those of what was ablated before.
    """
    space = experiment.spaces[best.contender.record.architecture]
    ablations = Ablations(space, best, knobs, ledger.history, experiment.spec["seed"])
    return ablations if ablations.variants or ablations.left_out else None


def _tested(
    experiment: Experiment,
    ledger: Ledger,
    chosen: Json,
    trials: dict[str, list[int]],
    finals: dict[str, list[TrialRecord]],
) -> Predictions:
    """Return what the final models say of the test images; where they were asked before, the split stays closed."""
    opened, path = ledger.history.tests_opened, experiment.folder / PREDICTIONS
    these = bool(opened) and opened[-1]["finals"] == trials
    records = [record for of_seeds in finals.values() for record in of_seeds]
    if these and (kept := read_predictions(path, [record.trial for record in records])):
        return kept
    models = {record.trial: final_model(experiment, record) for record in records}
    if not these:  # else it was opened for them, and then the process died
        ledger.append("chosen", **chosen)
        ledger.append("test_opened", finals=trials)
    fault("analysis.test_opened")
    predictions = test_predictions(models, chosen["trial"], experiment.cache().folder)
    predictions.write(path)
    return predictions


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
