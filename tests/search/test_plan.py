"""What a search would take: the arithmetic of a plan, its rungs against the real ones, and what is said of it."""

import random
from dataclasses import replace
from typing import Any

import pytest

from cluster.forecast import PaperRungs, Span, timetable
from cluster.history import History
from cluster.resources import Slot
from search.disk import Disk
from search.halving import Halving, stopping
from search.pacing import Paces, reckoned
from search.plan import Plan, Simulated
from search.plan import simulate as simulate_search
from search.spec import SearchSpec, checked_spec

EXACT = Paces("cnn", (2.0, 4.0), known=2, begin_seconds=1.0, error=0.0)


def asked(**more: Any) -> SearchSpec:
    return checked_spec({"data": "digits", "name": "x", "method": "random", "trials": 8, "epochs": 10} | more)


def simulate(paces: list[Paces], spec: SearchSpec, slots: int) -> Simulated:
    return simulate_search(paces, spec, slots, random.Random(0), machine_error=0.0)


def test_without_rungs_every_trial_runs_all_its_epochs() -> None:
    found = simulate([EXACT], asked(), slots=1)
    assert set(found.epochs) == {80}
    assert set(found.begun) == {8}
    assert found.seconds == pytest.approx([21 + 7 * 41] * len(found.seconds))
    assert found.trials == {"cnn": 8}
    two = simulate([EXACT], asked(), slots=2)
    assert two.seconds == pytest.approx([4 * 41] * len(two.seconds))


def test_epochs_on_fewer_images_up_to_the_first_rung_take_less() -> None:
    found = simulate([EXACT], asked(method="asha", trials=1, epochs=20, grace_images=0.25), slots=1)
    assert found.seconds == pytest.approx([1 + 2 * (2 * 0.25 + 18)] * len(found.seconds))
    assert set(found.epochs) == {20}


def test_trials_are_dealt_out_evenly() -> None:
    other = Paces("vgg11", (1.0,), 1, 0.0, 0.0)
    found = simulate([EXACT, other], asked(trials=5), slots=1)
    assert found.trials == {"cnn": 3, "vgg11": 2}
    assert found.seconds == pytest.approx([21 + 2 * 41 + 2 * 10] * len(found.seconds))


def test_what_the_search_will_propose_is_planned_in_its_order() -> None:
    known = Paces("cnn", (1.0, 2.0, 30.0, 5.0), known=3, begin_seconds=0.0, error=0.0)
    found = simulate([known], asked(trials=3), slots=1)
    assert found.seconds == pytest.approx([330.0] * len(found.seconds))
    found = simulate([known], asked(trials=4), slots=1)
    assert {round(seconds) for seconds in found.seconds} == {350, 630, 380}  # the fourth is any of those drawn


def test_a_time_budget_ends_the_search_and_leaves_out_what_it_has_no_room_for() -> None:
    wide = Paces("cnn", (2.0, 400.0, 4.0), 3, 0.0, 0.0)
    found = simulate([wide], asked(time_budget="100s"), slots=1)
    assert set(found.seconds) == {100.0}
    assert set(found.begun) == {3}  # of 20, 40 and 40 s
    assert set(found.epochs) == {30}
    within = simulate([wide], asked(time_budget="98s"), slots=1)
    assert set(within.seconds) == {100.0}  # the tenth epoch of the third trial had begun


def test_the_rungs_on_paper_are_those_of_the_search() -> None:
    rng = random.Random(1)
    halving, history = Halving("val_accuracy", 30), History()
    rungs = PaperRungs(stopping(30))
    for trial in range(40):
        score = rng.random()
        assert rungs.epochs_run(30, score) == _really_run(halving, history, trial, score)
    assert len(rungs.scores[3]) == 40


def _really_run(halving: Halving, history: History, trial: int, score: float) -> int:
    def write(event: str, **fields: Any) -> dict[str, Any]:
        row = {"seq": history.last_seq + 1, "time": 0.0, "incarnation": 1, "event": event, "trial": trial, **fields}
        history.apply(row)
        return row

    work = {"epochs": 30}
    write("proposed", role="search", architecture="cnn", config={}, seed=0, work=work, method="asha")
    write("started", attempt=1, n_params=1)
    for epoch in range(1, 31):
        row = write("epoch", attempt=1, epoch=epoch, val_accuracy=score, val_loss=1.0, seconds=1.0)
        decision = halving.decide(history, history.trials[trial], row)
        if decision and decision.stop:
            return epoch
    return 30


def test_paces_are_reckoned_from_operations_and_what_was_measured_stays() -> None:
    flops = [1e6, 2e6, 4e6, 8e6]
    every, error = reckoned(flops, {0: 0.003, 3: 0.017})
    assert every == pytest.approx([0.003, 0.005, 0.009, 0.017])
    assert error == 0.05  # no machine is steadier than that
    every, error = reckoned(flops, {0: 0.003, 1: 0.010, 3: 0.017})
    assert every[1] == 0.010
    assert error > 0.2


def test_a_span_holds_nine_of_ten() -> None:
    assert Span.of(range(101)) == Span(50, 5, 95)
    assert Span.of([3.0]) == Span(3.0, 3.0, 3.0)


def test_a_trial_begins_when_a_slot_is_free() -> None:
    assert timetable([4, 1, 2, 5], 2) == [(0, 4), (0, 1), (1, 3), (3, 8)]


def test_what_is_said_of_a_plan() -> None:
    from analysis.price import Price
    from planning import sentences, spent

    found = Plan(
        (EXACT,),
        {"cnn": 8},
        {"cnn": {}},
        epochs=Span(80, 70, 90),
        begun=Span(6, 5, 8),
        seconds=Span(3600.0, 1800.0, 7200.0),
        val_share=0.2,
        slot=Slot(4, 0.5),
        slots=2,
        grows=True,
        freezes=True,
        device="a GPU",
        disk=Disk(5, "Disk: little."),
    )
    price = Price(4, 24, Span(1800.0, 900.0, 3600.0))
    assert sentences(found, price, asked(patience=3, time_budget="2h", method="tpe_asha"), 4.0) == [
        "Search: 80 epochs in all [70 to 90], 1 h 00 min [30 min to 2 h 00 min], on 2 slots of 4 cores and 0.5 GPU "
        "(a GPU).",
        "Of 8 trials, 6 [5 to 8] begin within the time budget. TPE begins with cheap ones, so more may.",
        "That is with the hosts there are now: others may come while it runs, and it then takes less time.",
        "Where what frozen layers give is kept, computing it once a host is not in it.",
        "Analysis: at most 4 contenders, 24 trainings, 30 min [15 min to 1 h 00 min].",
        "Together: 1.5 GPU-hours, 6.00 at 4 an hour.",
        "Disk: little.",
        "Patience will end trials earlier than reckoned here: how many, only their curves can say.",
    ]
    assert "Together: 1.5 GPU-hours, 0.00 at 0 an hour." in sentences(found, price, asked(), 0.0)
    assert spent(found, price, 4.0) == {"machine_hours": 1.5, "cost": 6.0}  # of --json
    assert spent(found, price, None)["cost"] is None
    learns_nothing = sentences(found, price, asked(time_budget="2h", method="asha"), None)
    assert learns_nothing[1] == "Of 8 trials, 6 [5 to 8] begin within the time budget."
    in_time = replace(found, begun=Span(8, 8, 8))
    assert sentences(in_time, price, asked(), None)[4] == "Together: 1.5 GPU-hours."
