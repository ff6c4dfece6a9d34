"""How a search went, in the report: the numbers of each section, with trials that failed and without any."""

from typing import Any

import pytest
from example_analysis import example_analysis, ready

from analysis.page import NotYet, Plot, Section
from analysis.searched import best_so_far, side_by_side, stopped_trials
from analysis.slices import parallel_coordinates, slices

SECTIONS = (best_so_far, stopped_trials, side_by_side, slices, parallel_coordinates)


def plots(section: Section) -> list[Plot]:
    return [figure for figure in section.figures if isinstance(figure, Plot)]


def fail_all(analysis: dict[str, Any]) -> None:
    for trial in analysis["search"]["trials"]:
        trial.update(status="diverged", ended_by="diverged", rung=0, stop_reason=None)
    analysis["search"].update(by_status={"diverged": 40}, rungs=[])


def test_the_best_so_far_by_number_and_by_time(analysis: dict[str, Any]) -> None:
    section = ready(best_so_far(analysis))
    assert section.sentences == (
        "The best val_accuracy is 83.5 %, that of trial 3 (cnn, completed); 34 trials after it found nothing better.",
        "Not drawn: 1 trial without a finished epoch.",
    )
    by_number, by_time = plots(section)
    scores = {row["trial"]: row["val_accuracy"] for row in analysis["search"]["trials"]}
    (line,) = by_number.lines
    assert line.stepped
    assert line.x == (0.0, 2.0, 3.0, 39.0)
    assert line.y == (scores[0], scores[2], scores[3], scores[3])
    assert {points.group: len(points.x) for points in by_number.points} == {"completed": 12, "stopped": 26, "failed": 1}
    ended = {row["trial"]: row["ended_after"] for row in analysis["search"]["trials"]}
    assert by_time.x_title == "minutes of search"
    assert by_time.lines[0].x == pytest.approx([ended[0] / 60, ended[2] / 60, ended[3] / 60, ended[39] / 60])


def test_long_searches_are_counted_in_hours_and_losses_fall(analysis: dict[str, Any]) -> None:
    analysis["experiment"]["metric"] = "val_loss"
    for trial in analysis["search"]["trials"]:
        trial["ended_after"] *= 10
    section = ready(best_so_far(analysis))
    assert section.sentences[0].startswith("The best val_loss is 0.3959, that of trial 3")
    by_time = plots(section)[1]
    assert by_time.x_title == "hours of search"
    assert max(by_time.lines[0].x) == pytest.approx(analysis["search"]["seconds"] * 10 / 3600)
    losses = [loss for loss in by_time.lines[0].y if loss is not None]
    assert losses == sorted(losses, reverse=True)


def test_a_failed_trial_is_drawn_but_never_the_best(analysis: dict[str, Any]) -> None:
    failed = next(trial for trial in analysis["search"]["trials"] if trial["trial"] == 7)
    failed["val_accuracy"] = 0.99
    section = ready(best_so_far(analysis))
    assert "83.5 %" in section.sentences[0]
    assert all(0.99 not in plot.lines[0].y for plot in plots(section))
    assert plots(section)[0].points[-1].y == (0.99,)


def test_stopped_trials_are_counted_by_rung_and_by_what_ended_them(analysis: dict[str, Any]) -> None:
    section = ready(stopped_trials(analysis))
    assert section.sentences[0] == "How 40 trials ended: 12 after all epochs, 25 at a rung, 1 out of time and 2 failed."
    rungs, endings, stopped = section.tables
    assert [row[:2] for row in rungs.rows[:3]] == [("cnn", "3"), ("cnn", "9"), ("cnn", "27")]
    assert all(int(row[2]) == int(row[3]) + int(row[4]) for row in rungs.rows)
    assert "the cutoff of" in rungs.rows[0][-1]
    assert endings.header[1:] == ("after all epochs", "out of patience", "at a rung", "out of time", "failed", "all")
    assert endings.rows[0] == ("cnn", "2", "0", "15", "1", "2", "20")
    assert len(stopped.rows) == 26
    assert stopped.rows[-1] == ("39", "cnn", "after 2 epochs", "stopped at epoch 2: the time budget is used up")
    assert stopped.rows[0][2] == "at rung 3"


def test_that_trials_began_with_fewer_images_is_said(analysis: dict[str, Any]) -> None:
    before = ready(stopped_trials(analysis)).sentences
    analysis["experiment"]["grace_images"] = 0.25
    (said,) = set(ready(stopped_trials(analysis)).sentences) - set(before)
    assert said.startswith("Up to the first rung each epoch was trained on 25 % of the training images")


def test_more_stopped_trials_than_a_table_shows(analysis: dict[str, Any]) -> None:
    analysis["search"]["trials"] *= 5
    section = ready(stopped_trials(analysis))
    assert len(section.tables[-1].rows) == 100
    assert "The first 100 of 130 stopped trials; trials.csv has all of them." in section.sentences


def test_patience_is_counted_and_a_method_without_rungs_says_so(analysis: dict[str, Any]) -> None:
    analysis["experiment"]["method"] = "random"
    analysis["search"]["rungs"] = []
    for trial in analysis["search"]["trials"]:
        trial.update(status="completed", ended_by="patience", rung=30)
    section = ready(stopped_trials(analysis))
    assert section.sentences == ("How 40 trials ended: 40 out of patience.", "random has judged no trial at a rung.")
    assert len(section.tables) == 1


def test_options_are_compared_by_median_and_best_and_not_as_an_experiment(analysis: dict[str, Any]) -> None:
    trials = [trial for trial in analysis["search"]["trials"] if trial["architecture"] == "cnn"]
    analysis["search"]["trials"] = trials[:5]
    for trial, (optimizer, score) in zip(
        trials, [("sgd", 0.9), ("sgd", 0.1), ("sgd", 0.2), ("adam", 0.5), ("adam", 0.6)], strict=False
    ):
        trial.update(val_accuracy=score, ended_by="epochs", status="completed")
        trial["config"].update(optimizer=optimizer, activation="relu", schedule="step", batch_norm=score > 0.5)
    section = ready(side_by_side(analysis))
    assert "TPE does not sample evenly" in section.sentences[1]
    assert "no controlled comparisons: `convscout analyze RUN --ablate optimizer` makes one" in section.sentences[1]
    (table,) = section.tables
    best = str(trials[0]["trial"])
    assert table.rows[0] == ("cnn", "optimizer", "sgd", "3", "3", "20.0 %", "90.0 %", best)
    assert table.rows[1][2:7] == ("adam", "2", "2", "55.0 %", "60.0 %")
    assert table.rows[3][2:] == ("rmsprop", "0", "0", "–", "–", "–")
    plot, batch_norm = plots(section)  # one activation, or one schedule, is no comparison
    assert batch_norm.categories == ("true", "false")
    assert batch_norm.sentence.endswith("true has the best median, 75.0 % (n = 2); true the best trial, 90.0 %.")
    assert plot.sentence.endswith("adam has the best median, 55.0 % (n = 2); sgd the best trial, 90.0 %.")
    medians = plot.points[-1]
    assert (medians.x, medians.y) == (("sgd", "adam"), (0.2, pytest.approx(0.55)))
    analysis["experiment"]["method"] = "random"
    assert "TPE" not in ready(side_by_side(analysis)).sentences[1]


def test_of_losses_the_lowest_median_is_the_best(analysis: dict[str, Any]) -> None:
    analysis["experiment"]["metric"] = "val_loss"
    for trial in analysis["search"]["trials"]:
        trial["config"]["optimizer"] = "sgd" if trial["trial"] % 4 < 2 else "adam"
        if trial["val_loss"] is not None:
            trial["val_loss"] = 1.0 if trial["trial"] % 4 < 2 else 2.0
    for plot in plots(ready(side_by_side(analysis))):
        if plot.title.endswith("optimizer"):
            assert "sgd has the best median, 1.0000" in plot.sentence


@pytest.mark.parametrize("section", SECTIONS)
def test_every_trial_failed(analysis: dict[str, Any], section: Any) -> None:
    fail_all(analysis)
    content = section(analysis)
    if section is stopped_trials:
        assert ready(content).sentences[0] == "How 40 trials ended: 40 failed."
        assert [table.title for table in ready(content).tables] == ["How trials ended"]
    else:
        assert isinstance(content, NotYet)
        assert content.reason.startswith(("not enough trials", "no trial of the search has a score"))


@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_was_searched_yet(section: Any) -> None:
    content = section(example_analysis(n_trials=0))
    assert isinstance(content, NotYet)
    without = example_analysis(n_trials=0)
    del without["search"]
    assert section(without) == content
