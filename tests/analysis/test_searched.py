"""How the search went, in numbers: its history, its rungs, each option and each hyperparameter by itself."""

import copy
from typing import Any

import pytest
from example_analysis import example_analysis

from analysis.drawing import draw
from analysis.page import NotYet, Scatter, Section
from analysis.searched import MOST_SLICES, history_of_the_best, options_side_by_side, slices, stopped_where

SECTIONS = (history_of_the_best, options_side_by_side, slices, stopped_where)


def trial(number: int, accuracy: float | None, status: str = "completed", **config: Any) -> dict[str, Any]:
    return {"trial": number, "architecture": "cnn", "status": status, "val_accuracy": accuracy, "config": config} | {
        "val_loss": None if accuracy is None else 1 - accuracy
    }


def analysis(*trials: dict[str, Any], metric: str = "val_accuracy", **search: Any) -> dict[str, Any]:
    found = {"trials": list(trials), "by_status": {"completed": len(trials)}, "rungs": [], "stops": {}}
    return {"experiment": {"metric": metric}, "search": found | search}


def ready(content: Section | NotYet) -> Section:
    assert isinstance(content, Section), content
    return content


def test_the_best_so_far_never_falls_and_its_trial_is_named() -> None:
    searched = (trial(2, 0.4), trial(0, 0.5), trial(1, 0.7, "stopped"), trial(3, None, "diverged"))
    section = ready(history_of_the_best(analysis(*searched)))
    (figure,) = section.figures
    assert isinstance(figure, Scatter)
    assert figure.line is not None
    assert (figure.line.x, figure.line.y) == ((0, 1, 2), (0.5, 0.7, 0.7))
    assert [(group.name, group.x) for group in figure.groups] == [("completed", (0, 2)), ("stopped", (1,))]
    assert "the best, 70.0 %, came with trial 1, 2 of 4." in section.sentences[0]
    lowest = ready(history_of_the_best(analysis(*searched, metric="val_loss"))).figures[0]
    assert isinstance(lowest, Scatter)
    assert lowest.line is not None
    assert lowest.line.y == pytest.approx((0.5, 0.3, 0.3))


def test_rungs_count_who_got_there_and_who_stopped() -> None:
    found = analysis(
        trial(0, 0.5),
        by_status={"completed": 3, "stopped": 4, "out_of_memory": 1},
        rungs=[{"epoch": 1, "went_on": 4, "stopped": 3}, {"epoch": 3, "went_on": 3, "stopped": 0}],
        stops={"rung": 3, "budget": 1, "patience": 2},
    )
    section = ready(stopped_where(found))
    assert section.sentences[0] == "Of all trials 3 completed, 4 stopped and 1 out of memory."
    assert "1 were stopped because the time budget was used up" in section.sentences[1]
    assert "2 ran out of patience" in section.sentences[1]
    assert section.tables[0].rows == (("1", "7", "4", "3"), ("3", "3", "3", "0"))
    assert ready(stopped_where(analysis(trial(0, 0.5)))).sentences[-1] == "The method stops no trial early at a rung."


def test_options_say_how_often_they_were_tried_and_that_this_is_no_comparison() -> None:
    searched = [trial(n, 0.5 + n / 100, optimizer="adam", activation="relu") for n in range(3)]
    searched.append(trial(3, 0.9, "stopped", optimizer="sgd", activation="relu"))
    section = ready(options_side_by_side(analysis(*searched)))
    assert [table.title for table in section.tables] == ["cnn: optimizer"]
    assert section.tables[0].rows == (("sgd", "1", "0", "90.0 %", "90.0 %"), ("adam", "3", "3", "51.0 %", "52.0 %"))
    assert "no controlled comparison" in section.sentences[0]


def test_slices_have_a_log_axis_where_a_range_is_wide_and_categories_where_it_has_words() -> None:
    rates = (1e-4, 1e-3, 1e-2)
    searched = [
        trial(n, 0.5, learning_rate=rate, optimizer=name, depth=3)
        for n, (rate, name) in enumerate(zip(rates, ("adam", "sgd", "<b>"), strict=True))
    ]
    rate, optimizer = (figure for figure in ready(slices(analysis(*searched))).figures)
    assert isinstance(rate, Scatter)
    assert isinstance(optimizer, Scatter)
    assert (rate.log_x, rate.groups[0].x) == (True, rates)
    drawn = draw(optimizer)
    assert (drawn["layout"]["xaxis"]["type"], drawn["data"][0]["x"]) == ("category", ["adam", "sgd", "&lt;b&gt;"])
    many = [trial(n, 0.5, **{f"knob{k}": n for k in range(30)}) for n in range(3)]
    assert len(ready(slices(analysis(*many))).figures) == MOST_SLICES


@pytest.mark.parametrize("section", SECTIONS)
def test_without_a_finished_epoch_each_says_why_it_is_empty(section: Any) -> None:
    failed = analysis(trial(0, None, "diverged"), by_status={"diverged": 1})
    empty = analysis(by_status={})
    assert isinstance(section(empty), NotYet)
    if section is not stopped_where:
        assert isinstance(section(failed), NotYet)


def test_all_are_drawn_on_a_whole_analysis() -> None:
    whole = copy.deepcopy(example_analysis())
    for section in SECTIONS:
        assert isinstance(section(whole), Section)
