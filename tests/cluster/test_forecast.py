"""The time left: gone through on paper from what the ledger knows, with the rungs of the search."""

import pytest
from observed_run import ObservedRun

from cluster.forecast import Forecast, PaperRungs, Span, Stopping

RUNGS = Stopping((1, 3), 2 / 3)


def left(run: ObservedRun, wanted: int | None, slots: int = 2, stopping: Stopping | None = None, later: float = 0.0):
    return Forecast(["search"], slots, "val_accuracy", stopping).time_left(run.history, wanted, run.time + later)


def trained(run: ObservedRun, epochs: int, seconds: float = 2.0, ends: bool = True, **begin) -> int:
    trial = run.begin(**begin)
    for _ in range(epochs):
        run.epoch(trial, seconds=seconds)
    if ends:
        run.end(trial)
    return trial


def test_nothing_is_known_before_the_first_epoch_and_without_a_number_of_trials() -> None:
    run = ObservedRun()
    trial = run.begin()
    assert left(run, 4) is None
    run.epoch(trial)
    assert left(run, None) is None


def test_nothing_is_left_when_all_have_ended() -> None:
    run = ObservedRun()
    trained(run, 1)
    assert left(run, 1) == Span(0.0, 0.0, 0.0)


def test_another_role_tells_nothing() -> None:
    run = ObservedRun()
    trained(run, 1, role="retrain")
    assert left(run, 3) is None


def test_without_rungs_every_trial_to_come_runs_all_its_epochs() -> None:
    run = ObservedRun()
    for _ in range(4):
        trained(run, 10)
    found = left(run, 8)  # four more of ten epochs of 2 s, on two slots
    assert found is not None
    assert found.middle == pytest.approx(40, rel=0.15)
    assert found.low < 40 < found.high


def test_rungs_make_it_shorter_as_they_will_stop_most() -> None:
    run = ObservedRun()
    for _ in range(4):
        trained(run, 10)
    without, with_rungs = left(run, 20), left(run, 20, stopping=RUNGS)
    assert without is not None
    assert with_rungs is not None
    assert with_rungs.middle < 0.6 * without.middle


def test_a_running_trial_that_leads_at_the_rung_is_reckoned_to_go_further_than_one_that_trails() -> None:
    def reckoned(accuracy: float) -> float:
        run = ObservedRun()
        for number in range(9):
            trial = run.begin()
            run.epoch(trial, 0.1 * number, seconds=2.0)
            run.epoch(trial, 0.1 * number, seconds=2.0)
            run.epoch(trial, 0.1 * number, seconds=2.0)
            run.write("decision", trial=trial, epoch=3, decision="stop", cause="rung", rung=3, sentence="")
            run.end(trial, "stopped")
        trial = run.begin()
        run.epoch(trial, accuracy, seconds=2.0)
        found = left(run, 10, 1, RUNGS)
        assert found is not None
        return found.middle

    leads, trails = reckoned(0.95), reckoned(0.05)
    assert trails == pytest.approx(2 * 2 - 1, rel=0.5)  # to the rung at epoch 3
    assert leads == pytest.approx(2 * 9 - 1, rel=0.5)  # to its end
    assert leads > 2 * trails


def test_an_epoch_that_has_begun_is_counted_but_never_for_more_than_itself() -> None:
    run = ObservedRun()
    trained(run, 9, seconds=4.0, ends=False)
    now, later, hung = left(run, 1, 1), left(run, 1, 1, later=2.0), left(run, 1, 1, later=300.0)
    assert now is not None
    assert later is not None
    assert hung is not None
    assert now.middle - later.middle == pytest.approx(2.0, abs=0.3)
    assert hung.middle == pytest.approx(0.0, abs=0.01)


def test_one_trial_that_failed_at_once_is_not_taken_for_the_rule() -> None:
    run = ObservedRun()
    trial = run.begin()
    run.epoch(trial)
    run.end(trial, "diverged")
    found = left(run, 9, 1)
    assert found is not None
    assert found.high > 8 * 10 * 2 * 0.6


def test_each_architecture_has_its_own_pace_and_its_own_rungs() -> None:
    run = ObservedRun()
    for _ in range(4):
        trained(run, 10, seconds=1.0, architecture="cnn")
        trained(run, 10, seconds=9.0, architecture="vgg11")
    found = left(run, 10, 1)  # one of each to come
    assert found is not None
    assert found.middle == pytest.approx(100, rel=0.2)


def test_of_ten_thousand_to_come_the_first_thousand_stand_for_the_others() -> None:
    run = ObservedRun()
    for _ in range(4):
        trained(run, 10)
    few, many = left(run, 1_004, 8), left(run, 10_004, 8)
    assert few is not None
    assert many is not None
    assert many.middle == pytest.approx(10 * few.middle, rel=0.05)


def test_a_rung_lets_the_better_third_through() -> None:
    rungs = PaperRungs(Stopping((1,), 2 / 3))
    for number in range(10):
        rungs.enter((number + 0.5) / 10, epochs=1)
    assert rungs.epochs_run(5, 0.60) == 1
    assert rungs.epochs_run(5, 0.70) == 5
    assert rungs.epochs_run(5, 0.05, done=1) == 5  # it has passed already


def test_epochs_on_fewer_images_tell_what_whole_ones_will_take() -> None:
    run = ObservedRun()
    for _ in range(4):
        trial = run.begin()
        run.history.trials[trial].work["grace"] = [2, 0.25]
        for epoch in range(10):
            run.epoch(trial, seconds=0.5 if epoch < 2 else 2.0)
        run.end(trial)
    found = left(run, 8, stopping=Stopping(grace=(2, 0.25)))  # four more of 17 s, on two slots
    assert found is not None
    assert found.middle == pytest.approx(34, rel=0.15)
    begun = ObservedRun()
    trial = begun.begin()
    begun.history.trials[trial].work["grace"] = [2, 0.25]
    begun.epoch(trial, seconds=0.5)
    found = left(begun, 1, slots=1, stopping=Stopping(grace=(2, 0.25)))  # 0.5 s and eight of 2 s are left
    assert found is not None
    assert found.low < 16.5 < found.high
