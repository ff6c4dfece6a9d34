"""The watchdog, with its clock turned by hand."""

from pathlib import Path
from typing import Any

import pytest

from cluster.dispatch import Dispatcher
from cluster.ledger import Ledger
from cluster.proposal import Proposal
from cluster.resources import Host, Place, Slot
from cluster.watchdog import HOSTLESS_SECONDS, SAID_SECONDS, Standstill, Watchdog, allowed_seconds
from foundation import HaltError

WORK = {"epochs": 9, "schedule_epochs": 9}


class Hall:
    """Two running trials, a watchdog, and what it ended."""

    def __init__(self, folder: Path, epoch_timeout: float | None = None) -> None:
        self.store_answers = True
        propose = lambda _: Proposal("search", "cnn", {}, 0, WORK, "random")  # noqa: E731
        self.dispatcher = Dispatcher(Ledger(folder), ["search"], propose, lambda *_: None)
        self.ended: list[tuple[str, int]] = []
        end, answers = lambda node, pid: self.ended.append((node, pid)), lambda: self.store_answers
        self.watchdog = Watchdog(self.dispatcher, end, epoch_timeout, store_answers=answers)
        for pid, key in enumerate("ab"):
            self.dispatcher.hand_out(key)
            self.report(key, kind="started", attempt=1, host="here", node="here", pid=pid, n_params=1, epochs=[])

    def report(self, key: str, **report: Any) -> None:
        self.dispatcher.report(key, report)

    def epoch(self, key: str, number: int, seconds: float) -> None:
        row = {"epoch": number, "val_loss": 1.0, "val_accuracy": 0.5, "seconds": seconds}
        self.report(key, kind="epoch", attempt=1, epoch=row)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.watchdog.tick(1.0)


def test_an_epoch_may_take_ten_times_the_longest_before_it(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    for key, seconds in (("a", 20.0), ("b", 50.0)):
        hall.epoch(key, 1, seconds)
    hall.wait(201)
    assert hall.ended == []
    hall.wait(1)
    assert hall.ended == [("here", 0)]
    assert hall.dispatcher.hung == {"a": "epoch 2 hung: no end after 201 s, 200 are allowed"}
    hall.dispatcher.lost("a", "the actor died")
    record = hall.dispatcher.history.trials[0]
    assert (record.live, record.lost[0]["cause"]) == (True, "hung")
    hall.epoch("b", 2, 50.0)  # in time: its clock begins anew
    hall.wait(500)
    assert hall.ended == [("here", 0)]


def test_what_was_read_so_far_may_have_to_be_computed_in_the_next_epoch(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    record = hall.dispatcher.history.trials[0]
    hall.epoch("a", 1, 2.0)
    assert allowed_seconds(hall.dispatcher.history, record, None) == 120.0
    record.epochs[-1]["reads_features"] = True
    assert allowed_seconds(hall.dispatcher.history, record, None) == 900.0
    hall.dispatcher.history.longest_first[0] = 200.0  # some trial's first epoch, which computed
    assert allowed_seconds(hall.dispatcher.history, record, None) == 6000.0


def test_an_epoch_on_a_share_of_the_images_counts_as_a_whole_one(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    record = hall.dispatcher.history.trials[0]
    record.work = record.work | {"grace": [1, 0.2]}
    hall.epoch("a", 1, 20.0)
    assert allowed_seconds(hall.dispatcher.history, record, None) == 1000.0
    hall.epoch("a", 2, 90.0)
    assert allowed_seconds(hall.dispatcher.history, record, None) == 1000.0
    hall.epoch("a", 3, 110.0)
    assert allowed_seconds(hall.dispatcher.history, record, None) == 1100.0


def test_a_machine_that_slept_was_not_late(tmp_path: Path) -> None:
    hall = Hall(tmp_path, epoch_timeout=60.0)
    hall.epoch("a", 1, 1.0)
    hall.wait(30)
    hall.watchdog.tick(8 * 3600.0)
    assert hall.ended == []
    assert hall.watchdog.clock == 32.0


def test_a_timeout_that_was_asked_for_holds_from_the_first_epoch_on(tmp_path: Path) -> None:
    hall = Hall(tmp_path, epoch_timeout=5.0)
    hall.wait(7)
    assert sorted(hall.ended) == [("here", 0), ("here", 1)]


def test_a_worker_that_waits_for_its_store_does_not_hang(tmp_path: Path) -> None:
    hall = Hall(tmp_path, epoch_timeout=5.0)
    hall.store_answers = False
    hall.wait(595)
    hall.store_answers = True
    hall.wait(3)
    assert hall.ended == []
    hall.wait(4)
    assert sorted(hall.ended) == [("here", 0), ("here", 1)]


@pytest.mark.parametrize(
    ("own", "other", "allowed"),
    [((), (), None), ((), (10.0,), 900.0), ((), (100.0,), 3000.0), ((1.0,), (), 120.0), ((5.0, 30.0, 6.0), (), 300.0)],
)
def test_what_an_epoch_is_allowed(
    tmp_path: Path, own: tuple[float, ...], other: tuple[float, ...], allowed: float | None
) -> None:
    hall = Hall(tmp_path)
    for key, seconds in (("a", own), ("b", other)):
        for number, each in enumerate(seconds, start=1):
            hall.epoch(key, number, each)
    history = hall.dispatcher.history
    assert allowed_seconds(history, history.trials[0], None) == allowed


def test_epochs_that_train_other_layers_are_not_measured_against_those_before(tmp_path: Path) -> None:
    def epoch(number: int, key: str, seconds: float, **fields: Any) -> None:
        row = {"epoch": number, "val_loss": 1.0, "val_accuracy": 0.5, "seconds": seconds, **fields}
        hall.report(key, kind="epoch", attempt=1, epoch=row)

    hall = Hall(tmp_path)
    records = hall.dispatcher.history.trials
    epoch(1, "a", 1.0, layers_change=True)
    assert allowed_seconds(hall.dispatcher.history, records[0], None) is None  # nobody has trained those yet
    epoch(2, "a", 100.0)
    assert allowed_seconds(hall.dispatcher.history, records[0], None) == 1000.0
    epoch(1, "b", 1.0, layers_change=True)
    assert allowed_seconds(hall.dispatcher.history, records[1], None) == 3000.0  # thirty times what another took


class Waiting:
    """Trials that were handed out and have not begun, on hosts with room for `rooms` of them."""

    def __init__(self, folder: Path, rooms: int) -> None:
        self.hall, self.said, self.rooms = Hall(folder), [], rooms
        self.dispatcher = self.hall.dispatcher
        self.woken = 0
        self.dispatcher.wake = self.wake
        self.standstill = Standstill(self.dispatcher, lambda: self.rooms, self.said.append)
        for key in "ab":
            self.dispatcher.lost(key, "its host is gone")
        self.dispatcher.hand_out("c")

    said: list[str]

    def wake(self) -> None:
        self.woken += 1

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.standstill.tick(1.0)


def test_a_standstill_is_said_once_and_halts_when_no_host_comes(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, rooms=0)
    waiting.wait(SAID_SECONDS - 1)
    assert waiting.said == []
    waiting.wait(60)
    assert waiting.said == [
        "1 trial waiting for 1 min: no living host has room for one; stops after 30 min without one."
    ]
    waiting.wait(HOSTLESS_SECONDS - 120)
    assert not waiting.dispatcher.halt
    waiting.wait(121)
    assert isinstance(waiting.dispatcher.halt, HaltError)
    assert str(waiting.dispatcher.halt) == "no host with room for a trial for 30 min (`ray status` says why)"
    assert waiting.woken == 1


def test_a_host_that_comes_in_time_ends_the_waiting(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, rooms=0)
    waiting.wait(HOSTLESS_SECONDS)
    waiting.rooms = 1
    waiting.wait(10)
    waiting.hall.report("c", kind="started", attempt=2, host="here", pid=7, n_params=1, epochs=[])
    waiting.wait(10 * HOSTLESS_SECONDS)
    assert waiting.dispatcher.halt is None
    assert len(waiting.said) == 1


def test_hosts_that_others_hold_are_said_and_waited_for(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, rooms=4)
    waiting.wait(2 * HOSTLESS_SECONDS)
    assert waiting.dispatcher.halt is None
    assert waiting.said == ["1 trial waiting for 1 min: the hosts are taken by others, or fetch the images."]


def test_it_halts_at_once_where_no_host_is_left_that_gets_what_trials_need(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, rooms=0)
    waiting.dispatcher.sharing.place = Place(Slot(1, 0.0), [Host(1, 0, node="n")])
    waiting.wait(2)
    assert waiting.dispatcher.halt is None
    waiting.hall.report("c", kind="unfit", node="n", error="host two: its disk is full: make room there")
    waiting.dispatcher.hand_out("d")
    waiting.rooms = 1  # another one is there, or comes
    waiting.wait(2)
    assert waiting.dispatcher.halt is None
    waiting.rooms = 0
    waiting.wait(2)
    assert isinstance(waiting.dispatcher.halt, HaltError)
    said = "no other host has room for a trial, and host two: its disk is full: make room there"
    assert str(waiting.dispatcher.halt) == said
    assert waiting.woken == 1
