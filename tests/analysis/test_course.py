"""What a search's history comes to: rungs, and what ended each trial."""

from typing import Any

import pytest
from example_search import SPACES, ExampleSearch

from analysis.course import rung_counts, search_results
from cluster.history import History

METRIC = "val_accuracy"


@pytest.fixture
def example() -> ExampleSearch:
    return ExampleSearch(n_trials=0)


def add(search: ExampleSearch, trial: int, scores: list[float], status: str | None, **config: Any) -> None:
    """Let a trial of cnn run with these scores, and end with a status; None lets it run on."""
    space = SPACES["cnn"]
    fields = {"config": space.baseline | config, "seed": 0, "work": {"epochs": 9}, "method": "random"}
    search.write("proposed", trial=trial, role="search", architecture="cnn", **fields)
    search.write("started", trial=trial, attempt=1)
    for epoch, score in enumerate(scores, start=1):
        figures = {METRIC: score, "val_loss": 1 - score, "seconds": 1.0, "images_per_second": 1.0}
        search.time += 1
        search.write("epoch", trial=trial, attempt=1, epoch=epoch, peak_memory_mb=None, **figures)
    if status:
        search.write("ended", trial=trial, status=status)


def decide(search: ExampleSearch, trial: int, epoch: int, decision: str, cause: str = "rung") -> None:
    fields = {"sentence": f"{decision} {trial}", "status": "stopped", "cause": cause, "rung": cause != "patience"}
    search.write("decision", trial=trial, epoch=epoch, decision=decision, **fields)


def test_rungs_count_who_was_judged_went_on_and_was_stopped(example: ExampleSearch) -> None:
    for trial in range(4):
        add(example, trial, [0.5], None)
    decide(example, 0, 1, "continue")
    decide(example, 1, 1, "stop")
    decide(example, 2, 1, "continue")
    decide(example, 0, 3, "stop")
    decide(example, 2, 3, "stop", cause="budget")
    decide(example, 3, 1, "stop", cause="patience")
    assert rung_counts(example.history.of_role("search")) == [
        {"architecture": "cnn", "epoch": 1, "judged": 3, "went_on": 2, "stopped": 1, "sentence": "continue 2"},
        {"architecture": "cnn", "epoch": 3, "judged": 2, "went_on": 1, "stopped": 1, "sentence": "stop 2"},
    ]


def test_the_counts_of_rungs_agree_with_the_trials() -> None:
    found = search_results(ExampleSearch().history, METRIC)
    stopped = [row for row in found["trials"] if row["ended_by"] == "rung"]
    assert sum(row["stopped"] for row in found["rungs"]) == len(stopped) == 25
    for rung in found["rungs"]:
        here = [row for row in stopped if row["architecture"] == rung["architecture"] and row["rung"] == rung["epoch"]]
        assert len(here) == rung["stopped"]
        assert rung["judged"] == rung["went_on"] + rung["stopped"]
    times = [row["ended_after"] for row in sorted(found["trials"], key=lambda row: row["trial"])]
    assert times == sorted(times)
    assert times[-1] == found["seconds"]


def test_nothing_has_happened_and_everything_has_failed(example: ExampleSearch) -> None:
    empty = search_results(History(), METRIC)
    assert (empty["trials"], empty["rungs"], empty["by_status"]) == ([], [], {})
    for trial in range(6):
        add(example, trial, [], "out_of_memory")
    failed = search_results(example.history, METRIC)
    assert failed["by_status"] == {"out_of_memory": 6}
    assert {row["ended_by"] for row in failed["trials"]} == {"out_of_memory"}
