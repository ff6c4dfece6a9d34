import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.history import History
from cluster.ledger import LEDGER, Ledger, read_history, read_rows
from cluster.lock import holder
from foundation import RequestError


def proposed(trial: int) -> dict[str, object]:
    return {
        "trial": trial,
        "role": "search",
        "architecture": "cnn",
        "config": {"learning_rate": 0.1},
        "seed": 1,
        "work": {"epochs": 3, "schedule_epochs": 3},
        "method": "random",
        "draw": 0,
        "seen": 0,
    }


def write_experiment(folder: Path) -> None:
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="x", trials=2)
        for trial in range(2):
            ledger.append("proposed", **proposed(trial))
            ledger.append("started", trial=trial, attempt=1, n_params=10)
            row = {"val_loss": 1.0, "val_accuracy": 0.5, "seconds": 1.0}
            ledger.append("epoch", trial=trial, attempt=1, epoch=1, **row)
            ledger.append("ended", trial=trial, status="completed", stop_reason="done", error=None)


def state(history: History) -> object:
    return {number: vars(record) for number, record in history.trials.items()}, history.last_seq


def test_replaying_gives_the_state_of_the_writer(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append("proposed", **proposed(0))
        ledger.append("started", trial=0, attempt=1, n_params=10)
        ledger.append("epoch", trial=0, attempt=1, epoch=1, val_loss=1.0, val_accuracy=0.5, seconds=1.0)
        live = state(ledger.history)
    assert state(read_history(tmp_path)) == live


def test_a_row_says_by_how_much_the_clock_jumped_since_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, own = [1000.0], [50.0]
    monkeypatch.setattr("cluster.ledger.time.time", lambda: wall[0])
    monkeypatch.setattr("cluster.ledger.time.monotonic", lambda: own[0])
    said = []
    with Ledger(tmp_path) as ledger:
        for on_the_wall, of_its_own in ((0, 0), (3600, 3600), (1.5, 1), (30_000, 10), (5, 5), (-3000, 600)):
            wall[0], own[0] = wall[0] + on_the_wall, own[0] + of_its_own
            said.append(ledger.append("resumed").get("clock_jumped"))
    assert said == [None, None, None, 29_990.0, None, -3600.0]


def test_rows_are_numbered_on_and_a_new_writer_is_a_new_incarnation(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    with Ledger(tmp_path) as ledger:
        row = ledger.append("resumed")
    assert row["seq"] == 10
    assert row["incarnation"] == 2


def test_a_cut_last_line_is_ignored_and_does_not_swallow_the_next_row(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    whole = (tmp_path / LEDGER).read_bytes()
    (tmp_path / LEDGER).write_bytes(whole + b'{"seq": 10, "ev')
    assert len(list(read_rows(tmp_path / LEDGER))) == 9
    with Ledger(tmp_path) as ledger:
        ledger.append("resumed")
    assert [row["event"] for row in read_rows(tmp_path / LEDGER)][-2:] == ["ended", "resumed"]


def test_a_garbled_last_line_is_overwritten_even_if_it_ends(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    with open(tmp_path / LEDGER, "ab") as file:
        file.write(b"\x00\x00\x00\n")
    with Ledger(tmp_path) as ledger:
        ledger.append("resumed")
    assert [row["event"] for row in read_rows(tmp_path / LEDGER)][-2:] == ["ended", "resumed"]


def test_a_row_that_only_half_fits_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write_experiment(tmp_path)
    before = (tmp_path / LEDGER).read_bytes()
    write = os.write
    with Ledger(tmp_path) as ledger:
        monkeypatch.setattr(os, "write", lambda file, line: write(file, line[: len(line) // 2]))
        with pytest.raises(OSError, match="No space left on device"):
            ledger.append("resumed")
        monkeypatch.undo()
        assert (tmp_path / LEDGER).read_bytes() == before
        ledger.append("resumed")
    assert len(list(read_rows(tmp_path / LEDGER))) == 10


@given(cut=st.integers(min_value=0, max_value=1_000_000))
@settings(max_examples=60, deadline=None)
def test_any_truncation_replays_to_a_prefix(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    write_experiment(folder)
    whole = (folder / LEDGER).read_bytes()
    rows = list(read_rows(folder / LEDGER))
    kept = whole[: cut % (len(whole) + 1)]
    (folder / LEDGER).write_bytes(kept)
    found = list(read_rows(folder / LEDGER))
    assert found == rows[: kept.count(b"\n")]


@pytest.mark.parametrize("bad", [b"garbage\n", b"\n", b'{"seq": 3\n'])
def test_damage_in_the_middle_stops_with_the_line_number(tmp_path: Path, bad: bytes) -> None:
    write_experiment(tmp_path)
    lines = (tmp_path / LEDGER).read_bytes().splitlines(keepends=True)
    lines[2] = bad
    (tmp_path / LEDGER).write_bytes(b"".join(lines))
    with pytest.raises(RequestError, match=r"line 3: not a JSON row.*cut it before that line"):
        list(read_rows(tmp_path / LEDGER))


def test_rows_of_an_older_writer_after_a_newer_one_are_dropped(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    late = {"seq": 10, "time": 0.0, "incarnation": 1, "event": "interrupted"}
    newer = {"seq": 10, "time": 0.0, "incarnation": 2, "event": "resumed"}
    with open(tmp_path / LEDGER, "a") as file:
        file.write(json.dumps(newer) + "\n" + json.dumps(late) + "\n")
    assert [row["event"] for row in read_rows(tmp_path / LEDGER)][-1] == "resumed"


def test_a_second_writer_is_refused_and_told_who_holds_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(RequestError, match=r"in use by host .*, pid \d+, since \d{4}"):
        Ledger(tmp_path)
    Ledger(tmp_path).close()


def _die_holding(folder: Path) -> None:
    ledger = Ledger(folder)
    ledger.append("experiment", name="x", trials=1)
    import os

    os._exit(1)


def test_the_lock_of_a_dead_writer_is_taken_over(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_holding, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 1
    assert holder(tmp_path) is None
    with Ledger(tmp_path) as ledger:
        assert ledger.history.trials_wanted == 1


def test_the_holder_is_known_while_it_lives(tmp_path: Path) -> None:
    import os

    with Ledger(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_a_folder_without_ledger_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no ledger.jsonl.*convscout runs"):
        read_history(tmp_path)


def test_numbers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, pytest.raises(ValueError, match="Out of range"):
        ledger.append("epoch", val_loss=float("nan"))
