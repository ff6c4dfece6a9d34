"""What a search teaches, from records of trials: which of them are looked at, and what the report says of it."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import spaces
from analysis.findings import could_still_win, what_mattered
from analysis.learned import learned
from analysis.page import NotYet, Section
from cluster.history import History
from cluster.record import TrialRecord

EPOCHS, N_VAL = 9, 400
CROWDS, PROMISING = 30, 31
SPACE = spaces.load("cnn")


def record(number: int, config: dict[str, Any], accuracies: list[float], status: str, rung: int) -> TrialRecord:
    made = TrialRecord(number, "search", "cnn", config, number, {"epochs": EPOCHS}, "tpe", 0.0, status=status)
    made.epochs = [
        {"epoch": epoch, "val_accuracy": value, "val_loss": 1 - value} for epoch, value in enumerate(accuracies, 1)
    ]
    made.decisions = [{"epoch": rung, "rung": True, "decision": "stop"}]
    return made


def experiment(n_trials: int, method: str = "tpe_asha", metric: str = "val_accuracy") -> Any:
    """Return an experiment in which accuracy falls with dropout alone, and all but every third trial stop at 3.

    From the thirtieth on, those that do not stop crowd at the highest learning rate and have no dropout; one that
    stops is better than all.
    """
    draws, history, kept = random.Random(0), History(), {}
    rng = np.random.default_rng(0)
    for number in range(n_trials):
        config = SPACE.draw(draws)
        whole = number % 3 == 0
        if whole and number >= CROWDS:
            config |= {"learning_rate": 0.0299, "dropout": 0.0}
        level = 0.95 if number == PROMISING else 0.8 - 0.5 * config["dropout"] / 0.5
        kept[number] = (
            rng.random((EPOCHS if whole else 3, N_VAL))
            < level * np.linspace(0.5, 1, EPOCHS)[: EPOCHS if whole else 3, None]
        )
        accuracies = kept[number].mean(axis=1).tolist()
        history.add(record(number, config, accuracies, "completed" if whole else "stopped", EPOCHS if whole else 3))
    return SimpleNamespace(
        history=history,
        metric=metric,
        spec={"epochs": EPOCHS, "method": method, "metric": metric},
        spaces={"cnn": SPACE},
        image_correct=lambda each: kept.get(each.trial),
    )


@pytest.fixture(scope="module")
def many() -> dict[str, Any]:
    return learned(experiment(60))


def test_the_knob_that_matters_is_found_at_the_rung_and_its_epoch_is_named(many: dict[str, Any]) -> None:
    at_rung, at_end = many["importance"]
    assert (at_rung["epoch"], at_rung["n_trials"], at_end["epoch"], at_end["n_trials"]) == (3, 60, EPOCHS, 20)
    assert at_rung["knobs"][0]["knob"] == "dropout"
    assert at_rung["knobs"][0]["share"] > 0.5
    assert "TPE does not sample evenly" in at_rung["caution"]
    section = what_mattered({"learned": many})
    assert isinstance(section, Section)
    assert section.tables[0].title == "cnn, 60 trials at epoch 3, stopped ones too"
    assert section.tables[0].rows[0][0] == "dropout"


def test_the_best_lies_at_the_edge_of_a_range_that_may_be_widened(many: dict[str, Any]) -> None:
    (edge,) = many["edges"]
    assert (edge["knob"], edge["at_high"], edge["limit"]) == ("learning_rate", True, 0.03)
    section = what_mattered({"learned": many})
    assert isinstance(section, Section)
    assert f"cnn, {edge['sentence']}." in section.sentences


def test_the_winner_is_worth_less_than_it_scored_and_was_picked_among_those_that_got_as_far(
    many: dict[str, Any],
) -> None:
    winner = many["winner"]
    assert winner["n_trials"] == 20
    assert winner["n_epochs"] == 20 * EPOCHS
    assert winner["corrected"] < winner["accuracy"]
    assert winner["trial"] % 3 == 0


def test_where_the_images_are_not_known_or_another_metric_chose_there_is_no_correction() -> None:
    lacking = experiment(6)
    lacking.image_correct = lambda _: None
    assert learned(lacking)["winner"] is None
    assert learned(experiment(6, metric="val_loss"))["winner"] is None


def test_stopped_trials_that_could_win_are_named_with_the_command(many: dict[str, Any]) -> None:
    rescue = many["rescue"]
    assert rescue["n_stopped"] == 40
    assert rescue["reason"] is None
    section = could_still_win({"learned": many, "experiment": {"name": "x", "run": "/elsewhere/x"}})
    assert isinstance(section, Section)
    assert section.sentences[0].startswith(f"{rescue['n_could_win']} of 40 stopped trials could still win")
    assert rescue["trials"][0]["trial"] == PROMISING
    assert [row[-1] for row in section.tables[0].rows] == [
        f"convscout rescue /elsewhere/x {found['trial']}" for found in rescue["trials"]
    ]
    assert all(found["high"] > found["best"] for found in rescue["trials"])


def test_few_trials_or_none_say_so() -> None:
    few = learned(experiment(4))
    assert all("not enough trials" in found["reason"] for found in few["importance"])
    section = what_mattered({"learned": few})
    assert isinstance(section, Section)
    assert "not enough trials: 20 are needed." in section.sentences[0]
    said = could_still_win({"learned": few, "experiment": {"name": "x"}})
    assert isinstance(said, NotYet)
    assert "extrapolation needs 5 or more" in said.reason
    empty = learned(experiment(0))
    assert empty["winner"] is None
    assert isinstance(what_mattered({"learned": empty}), NotYet)
    assert isinstance(what_mattered({}), NotYet)
    assert isinstance(could_still_win({}), NotYet)


def test_who_could_still_win_must_beat_those_whose_patience_ran_out_too() -> None:
    searched = experiment(60)
    found = learned(searched)["rescue"]
    assert found["n_could_win"] > 0
    weakest = min(each["high"] for each in found["trials"])
    level = (weakest + max(each["high"] for each in found["trials"])) / 2
    searched.history.add(record(60, SPACE.draw(random.Random(1)), [0.5, level], "completed", EPOCHS))
    after = learned(searched)["rescue"]
    assert after["n_could_win"] < found["n_could_win"]
    assert all(each["high"] > level == each["best"] for each in after["trials"])
