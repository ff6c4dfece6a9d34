import io
import math
import re
import threading
import time

import pytest
from observed_run import ObservedRun
from rich.console import Console

from analysis.troubles import recorded_troubles, troubles
from cluster.history import History
from cluster.observer import Guarded
from cluster.progress import Progress, clean, metric_text
from cluster.record import ranked
from cluster.standing import Standing


@pytest.fixture(autouse=True)
def _always_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come here faster than the time left is worked out in a search."""
    monkeypatch.setattr("cluster.progress.ESTIMATE_SHARE", math.inf)


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=200)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=160, height=60, force_terminal=True, color_system=None)


def lines_of(progress: Progress) -> list[str]:
    return [line[10:] for line in progress.console.file.getvalue().splitlines()]


def search_progress(console: Console, **changes) -> Progress:
    return Progress(
        **{"roles": ["search"], "title": "demo", "metric": "val_accuracy", "slots": 2} | changes, console=console
    )


# --- where the trials stand


def test_standing_kept_up_row_by_row_equals_one_made_from_the_whole_history():
    run = ObservedRun()
    standing = Standing(run.history, ["search"], "val_accuracy")

    class Keeper:
        def observe(self, row: dict, history: History) -> None:
            if "trial" in row:
                standing.take(row, history.trials[row["trial"]])
            whole = Standing(history, ["search"], "val_accuracy")
            assert [r.trial for r in standing.best] == [r.trial for r in whole.best]
            assert (standing.ended, standing.epochs) == (whole.ended, whole.epochs)
            assert [r.trial for r in standing.failures] == [r.trial for r in whole.failures]

    run.observers.append(Keeper())
    for number in range(9):
        trial = run.begin()
        for epoch in range(3):
            run.epoch(trial, val_accuracy=(number * 7 % 9) / 10 + epoch / 100)
        run.write("decision", trial=trial, epoch=3, decision="continue", sentence="", rung=number % 2 == 0)
        run.end(trial, ("completed", "stopped", "diverged")[number % 3], error="loss is not finite")
    assert standing.best[0] is ranked(run.history.of_role("search"), "val_accuracy")[0]


# --- plain lines


@pytest.mark.parametrize("console", [plain_console(), terminal()], ids=["plain", "terminal"])
def test_that_features_cannot_be_kept_is_said_once_and_counted_in_the_report(console):
    progress = search_progress(console)
    run = ObservedRun(progress)
    for not_kept in (True, True, False):
        trial = run.begin("mobilenet_v2")
        for _ in range(2):
            run.epoch(trial, features_not_kept=not_kept)
        run.end(trial)
    progress.close()
    assert console.file.getvalue().count("What frozen layers give cannot be kept") == 1
    section = troubles({"troubles": recorded_troubles(run.history)})
    assert "In 2 trials they computed it anew each epoch" in section.sentences[0]


@pytest.mark.parametrize("console", [plain_console(), terminal()], ids=["plain", "terminal"])
def test_which_layers_train_and_damaged_checkpoints_are_said_when_a_trial_starts(console):
    progress = search_progress(console)
    run = ObservedRun(progress)
    trial = run.begin("mobilenet_v2")
    damaged = ["a01-e0003: its checksum is wrong"]
    run.write("started", trial=trial, attempt=2, host="here", pid=1, trains="the head trains", damaged=damaged)
    progress.close()
    said = "the head trains; checkpoint passed over, a01-e0003: its checksum is wrong"
    assert console.file.getvalue().count(said) == 1


def test_plain_lines_say_how_each_trial_started_and_ended():
    progress = search_progress(plain_console())
    run = ObservedRun(progress, trials=3)
    first = run.begin(epochs=10)
    run.epoch(first, val_accuracy=0.61, seconds=60)
    run.end(first, "completed")
    second = run.begin("vgg11", epochs=10)
    run.epoch(second, val_accuracy=0.412)
    run.epoch(second, val_accuracy=0.3)
    run.end(second, "stopped", reason="stopped at epoch 2")
    time = re.compile(r"about \d+ \w+ left \[\d+ \w+ to \d+ \w+\]")
    assert [time.sub("about TIME left [LOW to HIGH]", line) for line in lines_of(progress)] == [
        "trial 0 cnn: started (at most 10 epochs, learning_rate 0.01, optimizer adam, batch_size 64)",
        "trial 0 cnn: completed at epoch 1, val_accuracy 61.0 % "
        "(best so far 61.0 %, trial 0; 1 of 3 trials, about TIME left [LOW to HIGH])",
        "trial 1 vgg11: started (at most 10 epochs, learning_rate 0.01, optimizer adam, batch_size 64)",
        "trial 1 vgg11: stopped at epoch 2, val_accuracy 41.2 % "
        "(best so far 61.0 %, trial 0; 2 of 3 trials, about TIME left [LOW to HIGH])",
    ]


def test_plain_lines_tell_the_time_left_bounded_by_the_budget():
    for budget, expected in (
        (None, r"about 1 h \d\d min left \[\d+ min to \d h \d\d min\]"),
        (600.0, "about 10 min left"),
    ):
        progress = search_progress(plain_console(), slots=1, budget_seconds=budget)
        run = ObservedRun(progress, trials=10)
        trial = run.begin()
        run.epoch(trial, seconds=120.0)
        run.end(trial)
        assert re.search(rf"1 of 10 trials, {expected}\)$", lines_of(progress)[-1])


def test_the_time_left_is_that_of_fewer_slots_once_the_slot_has_grown():
    last = {}
    for slots, grown in ((8, False), (8, True), (1, False)):
        progress = search_progress(plain_console(), slots=slots)
        run = ObservedRun(progress, trials=10)
        if grown:
            run.write("slot_grown", trial=0, attempt=1, slots=1, why="memory was short")
        else:
            run.write("interrupted")
        trial = run.begin()
        run.epoch(trial, seconds=120.0)
        run.end(trial)
        last[slots, grown] = lines_of(progress)[-1]
    assert last[8, True] == last[1, False] != last[8, False]


def test_plain_lines_say_failures_loudly_with_a_harmless_error_text():
    progress = search_progress(plain_console())
    run = ObservedRun(progress)
    trial = run.begin()
    run.end(trial, "out_of_memory", error="CUDA out of memory\n\x1b[31m[bold]tried[/nothing] :smile: " + "x" * 500)
    (line,) = lines_of(progress)[1:]
    assert line.startswith(
        "trial 0 cnn: FAILED, out_of_memory after 0 epochs: CUDA out of memory [31m[bold]tried[/nothing] :smile: xxx"
    )
    assert line.endswith("x… (1 of 20 trials, 1 FAILED, estimating the time left)")
    assert "\x1b" not in line


@pytest.mark.parametrize("console", [plain_console(), terminal()], ids=["plain", "terminal"])
def test_a_lost_worker_is_said_once_with_its_cause(console):
    progress = search_progress(console)
    run = ObservedRun(progress)
    trial = run.begin()
    lost = {"attempt": 1, "charged": True, "alone": False}
    run.write("lost", trial=trial, cause="hung", error="epoch 2 hung: no end after 130 s\x1b[2J", **lost)
    run.start(trial, attempt=2)
    progress.close()
    said = console.file.getvalue()
    assert said.count("trial 0 cnn: lost its worker, attempt 1 (hung): epoch 2 hung: no end after 130 s [2J") == 1


@pytest.mark.parametrize("console", [plain_console(), terminal()], ids=["plain", "terminal"])
def test_a_host_that_gets_no_more_trials_is_said_with_the_whole_remedy(console):
    progress = search_progress(console)
    run = ObservedRun(progress)
    error = f"host two: the images could not be fetched into '/{'long/' * 40}sent': make room there"
    lost = {"attempt": 1, "charged": False, "alone": False, "cause": "unfit", "error": error}
    run.write("lost", trial=run.begin(), **lost)
    progress.close()
    said = " ".join(console.file.getvalue().split())
    assert said.count(f"trial 0 cnn: goes to another host, as all others do: {error}") == 1


def test_plain_lines_of_a_second_attempt_and_of_a_final_training():
    progress = Progress(["final"], "demo", "val_accuracy", slots=1, wanted=2, console=plain_console())
    run = ObservedRun(progress)
    trial = run.begin(role="final", epochs=1)
    run.start(trial, attempt=2)
    run.epoch(trial, val_accuracy=None)
    run.end(trial)
    search = run.begin(role="search")
    run.end(search)
    lines = lines_of(progress)
    assert lines[1].startswith("trial 0 cnn: started again, attempt 2 (")
    assert lines[2].startswith(
        "trial 0 cnn: completed at epoch 1, trained on train and val, train_accuracy 75.0 % (1 of 2 trials, "
    )
    assert len(lines) == 3  # the other role's trial is not ours


def test_what_a_final_training_learned_is_not_set_beside_what_others_validated():
    progress = Progress(["retrain", "final"], "demo", "val_accuracy", slots=1, wanted=2, console=plain_console())
    run = ObservedRun(progress)
    for role, val_accuracy in (("retrain", 0.5), ("final", None)):
        trial = run.begin(role=role, epochs=1)
        run.epoch(trial, val_accuracy=val_accuracy)
        run.end(trial)
    retrained, final = [line for line in lines_of(progress) if "completed" in line]
    assert "val_accuracy 50.0 % (best so far 50.0 %" in retrained
    assert "trained on train and val, train_accuracy 75.0 % (2 of 2 trials" in final
    assert "best so far" not in final


def test_a_resumed_run_counts_what_the_earlier_one_did():
    run = ObservedRun(trials=3)
    first = run.begin()
    run.epoch(first, val_accuracy=0.9)
    run.end(first)
    failing = run.begin()
    run.end(failing, "diverged", error="loss is not finite")
    progress = search_progress(plain_console())
    run.resume(progress)
    run.write("resumed")
    last = run.begin()
    run.end(last, "data_error", error="no images")
    assert lines_of(progress)[-1].endswith("(best so far 90.0 %, trial 0; 3 of 3 trials, 2 FAILED, about 0 s left)")


def test_nothing_goes_to_stdout(capsys):
    progress = Progress(["search"], "demo", "val_accuracy", slots=1)
    run = ObservedRun(progress)
    run.end(run.begin())
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 2


# --- the live table


def test_the_live_table_shows_the_best_the_running_and_the_failed_trials_and_its_thread_ends():
    before = set(threading.enumerate())
    progress = search_progress(terminal(), metric="val_macro_f1")
    run = ObservedRun(progress, trials=40)
    for number in range(7):
        trial = run.begin("alexnet", learning_rate=0.001 * (number + 1))
        run.epoch(trial, val_accuracy=number / 10)
        run.end(trial)
    run.end(run.begin("[red]vgg"), "infeasible", error="kernel larger than the image")
    running = run.begin("vgg11", epochs=12)
    run.epoch(running, val_accuracy=0.05)
    run.begin("cnn", epochs=12)
    progress.close()
    text = progress.console.file.getvalue()
    assert re.search(r"demo: 8 of 40 trials, 8 epochs, \d+ s elapsed", text)
    assert "1 FAILED; the last one: trial 7 [red]vgg: FAILED, infeasible after 0 epochs: kernel larger" in text
    best = text[text.rindex("best so far") : text.rindex("running")].splitlines()[2:]
    assert [line.split()[0] for line in best if line.strip()] == ["6", "5", "4", "3", "2"]
    assert best[0].split() == ["6", "alexnet", "1/10", "1.400", "60.0", "%", "60.0", "%", "0.007", "adam", "64"]
    rows = [line.split() for line in text[text.rindex("running") :].splitlines()[2:4]]
    assert rows == [["8", "vgg11", "2/12", "1,234", "5.0", "%"], ["9", "cnn", "1/12", "–", "–"]]
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert not set(threading.enumerate()) - before


def test_the_live_table_stays_short_on_a_large_cluster():
    progress = search_progress(terminal())
    run = ObservedRun(progress)
    for _ in range(40):
        run.begin()
    progress.close()
    assert "and 24 more" in progress.console.file.getvalue()


def test_a_table_that_cannot_be_drawn_says_so_in_its_place():
    progress = search_progress(terminal())
    run = ObservedRun(progress)
    run.epoch(run.begin(), images_per_second="fast")
    progress.close()
    assert "the live table cannot be drawn (ValueError: " in progress.console.file.getvalue()


# --- what all observers share


def test_a_failing_observer_says_so_once_and_is_dropped(capsys):
    class Broken(Guarded):
        name = "TensorBoard events"
        calls = 0

        def _observe(self, row: dict, history: History) -> None:
            self.calls += 1
            raise OSError("no space left on device")

    broken = Broken()
    run = ObservedRun(broken)
    run.begin()
    broken.close()
    assert broken.calls == 1
    assert capsys.readouterr().err == (
        "TensorBoard events stopped (OSError: no space left on device); the search goes on\n"
    )


def test_a_failing_close_does_not_raise(capsys):
    class Broken(Guarded):
        def _finish(self) -> None:
            raise RuntimeError("terminal is gone")

    Broken().close()
    assert "terminal is gone" in capsys.readouterr().err


# --- words


def test_metric_text():
    assert metric_text("val_accuracy", 0.61) == "61.0 %"
    assert metric_text("val_loss", 1.23456) == "1.235"
    assert metric_text("val_loss", None) == "–"


def test_clean_leaves_one_short_line():
    assert clean("a\r\nb\x07\x1b[2Jc") == "a b [2Jc"
    assert clean("x" * 100, 10) == "x" * 9 + "…"
