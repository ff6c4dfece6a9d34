"""One knob changed at a time: which configurations that makes, what is trained for it, and what is said of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import spaces
from analysis.ablate import Ablations, check_knobs, variants
from analysis.comparison import one_knob_changed
from analysis.contest import Contestant
from analysis.page import NotYet, Section
from analysis.retrain import retraining
from analysis.select import Contender
from cluster.history import History
from cluster.record import TrialRecord
from foundation import RequestError

EPOCHS, N_VAL = 3, 200
SPACE = spaces.load("cnn")


def record(number: int, config: dict[str, Any], seed: int, work: dict[str, Any], accuracy: float) -> TrialRecord:
    made = TrialRecord(number, "search", "cnn", config, seed, work, "tpe", 0.0, status="completed")
    epoch = {"val_accuracy": accuracy, "train_loss": 1.0, "train_accuracy": 0.5, "learning_rate": 0.1}
    made.epochs = [epoch | {"epoch": number + 1, "val_loss": 1.0 - 0.1 * number} for number in range(EPOCHS)]
    return made


def winner(**knobs: Any) -> Contestant:
    work = {"epochs": EPOCHS, "schedule_epochs": EPOCHS}
    of_search = record(4, dict(SPACE.baseline) | knobs, 7, work, 0.7)
    runs = []
    for index in range(3):
        proposal = retraining(of_search, index, 0)
        runs.append(record(10 + index, proposal.config, proposal.seed, proposal.work, 0.7))
    return Contestant(Contender(of_search), runs)


def test_every_other_option_and_three_points_of_a_range() -> None:
    config = dict(SPACE.baseline)
    options = [value for value, _ in variants(SPACE, config, "activation")]
    assert config["activation"] not in options
    assert len(options) == len(SPACE.knobs["activation"].domain.options) - 1  # type: ignore[union-attr]
    for value, changed in variants(SPACE, config, "activation"):
        assert {name for name in config if changed[name] != config[name]} == {"activation"}
        assert changed["activation"] == value
    assert [value for value, _ in variants(SPACE, config | {"dropout": 0.31}, "dropout")] == pytest.approx(
        [0.0, 0.25, 0.5], abs=0.2
    )


def test_knobs_that_hang_on_the_changed_one_come_and_go() -> None:
    adam = dict(SPACE.baseline) | {"optimizer": "adam"}
    adam.pop("momentum", None)
    changed = dict(variants(SPACE, adam, "optimizer"))
    assert SPACE.mistakes(changed["sgd"]) == []
    assert "momentum" in changed["sgd"]
    back = dict(variants(SPACE, changed["sgd"], "optimizer"))
    assert "momentum" not in back["adam"]
    assert all(SPACE.mistakes(config) == [] for config in [*changed.values(), *back.values()])


def test_variants_are_trained_with_the_winners_seeds_once() -> None:
    history, best = History(), winner()
    ablations = Ablations(SPACE, best, ["optimizer"], history, 0)
    done = []
    while proposal := ablations.next_work(history):
        done.append(proposal)
        number = 20 + len(done)
        made = record(number, proposal.config, proposal.seed, proposal.work, 0.6)
        made.role = proposal.role
        history.add(made)
    assert len(done) == 3 * len(ablations.variants)
    assert {proposal.role for proposal in done} == {"ablation"}
    assert {proposal.seed for proposal in done} == {run.seed for run in best.runs}
    assert all(proposal.work["epochs"] == EPOCHS for proposal in done)
    again = Ablations(SPACE, best, [], history, 0)  # an analysis that does not ask shows what was asked before
    assert again.variants == ablations.variants
    assert again.next_work(history) is None


def test_words_that_cannot_be_ablated_of_any_contender_are_refused_all_at_once() -> None:
    narrow = spaces.narrowed(SPACE, {"activation": "relu", "optimizer": "adam"}, "--space")
    both = [winner(activation="relu", optimizer="adam").contender]
    with pytest.raises(RequestError) as refused:
        check_knobs(["optimiser", "activation", "momentum", "dropout"], both, {"cnn": narrow})
    assert refused.value.problems[0].startswith("--ablate optimiser: knob 'optimiser' is not known: did you mean")
    nowhere = "it cannot be changed in any contender (cnn trial 4: "
    assert list(refused.value.problems[1:]) == [
        f"--ablate activation: {nowhere}this search had no other value than relu)",
        f"--ablate momentum: {nowhere}it is not active there)",
    ]


def test_a_knob_that_only_another_contender_has_is_left_out_and_said() -> None:
    sgd, adam = winner(optimizer="sgd", momentum=0.9), winner(optimizer="adam")
    sgd.contender.record.trial = 5
    check_knobs(["momentum"], [sgd.contender, adam.contender], {"cnn": SPACE})
    ablations = Ablations(SPACE, adam, ["momentum"], History(), 0)
    assert ablations.variants == {}
    experiment: Any = SimpleNamespace(image_correct=lambda _: None, image_losses=lambda _: None)
    section = one_knob_changed({"ablations": ablations.results(History(), experiment)})
    assert section == NotYet("--ablate momentum has no row, since cnn trial 4 won: it is not active there.")
    with_rows = Ablations(SPACE, adam, ["momentum", "activation"], History(), 0)
    section = one_knob_changed({"ablations": with_rows.results(History(), experiment)})
    assert isinstance(section, Section)
    assert "--ablate momentum has no row" in section.sentences[-1]


def test_results_name_what_differs_and_what_failed() -> None:
    history, best = History(), winner()
    ablations = Ablations(SPACE, best, ["optimizer"], history, 0)
    rng = np.random.default_rng(0)
    rates, broken = {"optimizer sgd": 0.3}, "optimizer rmsprop"
    kept: dict[int, Any] = {run.trial: rng.random((EPOCHS, N_VAL)) < 0.7 for run in best.runs}
    for name in ablations.variants:
        for proposal in ablations.proposals(name):
            number = history.next_trial() + 100
            made = record(number, proposal.config, proposal.seed, proposal.work, 0.5)
            made.role, made.status = "ablation", "diverged" if name == broken else "completed"
            history.add(made)
            kept[number] = rng.random((EPOCHS, N_VAL)) < rates.get(name, 0.7)
    experiment: Any = SimpleNamespace(image_correct=lambda run: kept[run.trial], image_losses=lambda _: None)
    found = ablations.results(history, experiment)
    rows = {row["name"]: row for row in found["variants"]}
    assert rows["optimizer sgd"]["comparison"]["found"]
    assert rows["optimizer sgd"]["comparison"]["difference"] < -0.2
    assert rows[broken]["n_failed"] == 3
    assert "comparison" not in rows[broken]
    section = one_knob_changed({"ablations": found})
    assert isinstance(section, Section)
    shown = {row[1]: row for row in section.tables[0].rows}
    assert shown["rmsprop"][4] == "no run ended as it should; 3 runs failed"
    assert shown["sgd"][6] == "p < 0.001" or shown["sgd"][6].startswith("p = 0.0")
    assert isinstance(one_knob_changed({}), NotYet)
