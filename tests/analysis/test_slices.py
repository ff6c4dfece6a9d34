"""Scores against hyperparameters: what is drawn where, and what is said of ranges that were too narrow."""

from typing import Any

import pytest
from example_analysis import ready

from analysis.page import NotYet, Parallel, Plot
from analysis.slices import FEWEST_TRIALS, MOST_TRIALS, parallel_coordinates, slices


def sliced(analysis: dict[str, Any], architecture: str, knob: str) -> Plot:
    (found,) = (
        figure
        for figure in ready(slices(analysis)).figures
        if isinstance(figure, Plot) and (figure.heading, figure.title) == (architecture, knob)
    )
    return found


def drawn(analysis: dict[str, Any], architecture: str) -> list[Parallel]:
    figures = ready(parallel_coordinates(analysis)).figures
    return [figure for figure in figures if isinstance(figure, Parallel) and figure.heading == architecture]


def test_a_slice_has_every_trial_at_its_value_marked_by_how_far_it_got(analysis: dict[str, Any]) -> None:
    plot = sliced(analysis, "cnn", "learning_rate")
    assert plot.x_log
    assert plot.x_range == (0.0001, 0.03)
    assert plot.x_ticks == pytest.approx((0.0001, 0.001, 0.01))
    trials = [row for row in analysis["search"]["trials"] if row["architecture"] == "cnn" and row["rung"] == 3]
    (at_3,) = (points for points in plot.points if points.name == "stopped at 3")
    assert sorted(zip(at_3.x, at_3.y, strict=True)) == sorted(
        (trial["config"]["learning_rate"], trial["val_accuracy"]) for trial in trials if trial["ended_by"] == "rung"
    )
    strengths = {points.name: points.strength for points in plot.points}
    assert strengths["ran to the end"] == 1.0
    assert strengths["stopped at 0"] < strengths["stopped at 3"] < strengths["stopped at 9"] < 1.0
    assert plot.sentence == "18 trials, 0.0001 .. 0.03 (log); best at 0.0123 (trial 3)."
    assert "learning_rate 0.0123; trial 3 (cnn): 83.5 %, 30 of 30 epochs, completed" in plot.points[0].texts


def test_choices_are_categories_and_knobs_that_are_not_active_are_left_out(analysis: dict[str, Any]) -> None:
    plot = sliced(analysis, "cnn", "batch_norm")
    assert plot.categories == ("true", "false")
    assert {x for points in plot.points for x in points.x} == {"true", "false"}
    assert sliced(analysis, "cnn", "batch_size").categories == ("16", "32", "64", "128")
    having = [
        trial
        for trial in analysis["search"]["trials"]
        if trial["architecture"] == "cnn"
        and "momentum" in trial["config"]
        and trial["ended_by"] in ("rung", "epochs", "budget")
    ]
    momentum = sliced(analysis, "cnn", "momentum")
    assert sum(len(points.x) for points in momentum.points) == len(having) < 18


def test_plots_of_an_architecture_share_the_axis_of_scores(analysis: dict[str, Any]) -> None:
    ranges = {
        (figure.heading, figure.y_range) for figure in ready(slices(analysis)).figures if isinstance(figure, Plot)
    }
    assert len(ranges) == 2


def test_a_best_value_at_the_edge_of_its_range_is_said_twice(analysis: dict[str, Any]) -> None:
    section = ready(slices(analysis))
    (edge,) = analysis["learned"]["edges"]
    assert section.sentences[1] == f"cnn, {edge['sentence']}."
    assert sliced(analysis, "cnn", edge["knob"]).sentence.endswith("at the edge of its range: widen it.")
    assert "widen" not in sliced(analysis, "cnn", "learning_rate").sentence
    analysis["learned"]["edges"] = []
    said = "No range was found too narrow, with its best trials crowding at an edge."
    assert ready(slices(analysis)).sentences[1:] == (said,)
    del analysis["learned"]
    assert len(ready(slices(analysis)).sentences) == 1


@pytest.mark.parametrize("section", [slices, parallel_coordinates])
def test_an_architecture_with_too_few_trials_is_named_and_left_out(analysis: dict[str, Any], section: Any) -> None:
    rows = analysis["search"]["trials"]
    few = [row for row in rows if row["architecture"] == "cnn"][: FEWEST_TRIALS - 1]
    analysis["search"]["trials"] = [row for row in rows if row["architecture"] != "cnn"] + few
    found = ready(section(analysis))
    assert {figure.heading for figure in found.figures} == {"mobilenet_v2"}
    assert found.sentences[-1] == "cnn: not enough trials, 4 of 5 that are needed."
    analysis["search"]["trials"] = few
    assert section(analysis) == NotYet("not enough trials: 5 of one architecture are needed that have a score")


def test_a_browser_is_not_given_more_trials_than_it_can_draw(analysis: dict[str, Any]) -> None:
    analysis["search"]["trials"] *= 20
    section = ready(slices(analysis))
    assert "cnn: the first 300 of 360 in the leaderboard are drawn." in section.sentences
    assert sum(len(points.x) for points in sliced(analysis, "cnn", "flip").points) == MOST_TRIALS


def test_parallel_coordinates_begin_with_the_score_and_hold_every_hyperparameter(analysis: dict[str, Any]) -> None:
    figures = drawn(analysis, "cnn")
    assert [len(figure.axes) for figure in figures] == [9, 9, 9]
    names = [axis.name for figure in figures for axis in figure.axes[1:]]
    assert len(set(names)) == len(names) == 24
    score = figures[0].axes[0]
    assert (score.name, score.places[0], score.places[-1]) == ("val_accuracy", 1.0, 0.0)
    assert [text for _, text in score.ticks] == ["20.7 %", "52.1 %", "83.5 %"]
    rate = figures[0].axes[1]
    assert rate.ticks == ((0.0, "0.0001"), (pytest.approx(0.5), "0.001732"), (1.0, "0.03"))
    assert rate.values[0] == 0.0123
    assert figures[0].trials[0] == "trial 3"
    optimizer = figures[0].axes[2]
    assert [text for _, text in optimizer.ticks] == ["sgd", "adam", "adamw", "rmsprop"]
    assert optimizer.places[0] == 0.0


def test_a_hyperparameter_that_is_not_active_lies_below_its_axis(analysis: dict[str, Any]) -> None:
    (momentum,) = (axis for axis in drawn(analysis, "cnn")[0].axes if axis.name == "momentum")
    for value, place, text in zip(momentum.values, momentum.places, momentum.texts, strict=True):
        assert (value is None) == (place < 0) == (text == "not active")
    assert momentum.ticks[-1] == (min(momentum.places), "not active")


def test_bands_hold_each_trial_once_best_first(analysis: dict[str, Any]) -> None:
    (first, *_) = drawn(analysis, "cnn")
    assert [number for _, numbers in first.bands for number in numbers] == list(range(18))
    assert [len(numbers) for _, numbers in first.bands] == [2, 3, 4, 9]
    assert first.bands[0][0] == "best tenth: 83.5 % to 58.1 %"


def test_of_losses_the_lowest_is_at_the_top(analysis: dict[str, Any]) -> None:
    analysis["experiment"]["metric"] = "val_loss"
    score = drawn(analysis, "cnn")[0].axes[0]
    assert score.values[0] == min(score.values)
    assert score.places[0] == 1.0
    assert score.ticks[-1][1] == f"{min(score.values):.4f}"
