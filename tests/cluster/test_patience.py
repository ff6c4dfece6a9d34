"""For how long a store that refuses is asked again, and what is never asked twice."""

import errno
import itertools
from pathlib import Path

import pytest
from gate import Gate

from cluster import patience
from cluster.patience import PASSING, asked_again
from cluster.remote import LONG_SECONDS, Remote, store_of
from cluster.storage import experiment_folder


class Clock:
    """A clock that only pauses move, and what asks by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Store:
    """Refuses until a time; each call takes so many seconds."""

    def __init__(self, clock: Clock, until: float, number: int | None, seconds: float = 0.0) -> None:
        self.clock, self.until, self.number, self.seconds = clock, until, number, seconds
        self.patience_seconds = 60.0
        self.asked = 0

    @asked_again
    def read(self, name: str, *, suffix: str) -> str:
        self.asked += 1
        self.clock.now += self.seconds
        if self.clock.now < self.until:
            raise OSError(self.number, "not now")
        return name + suffix


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


def test_what_passes_is_asked_again_in_growing_pauses(clock: Clock) -> None:
    store = Store(clock, 50.0, errno.EIO)
    assert store.read("a", suffix="b") == "ab"
    assert 50.0 <= clock.now < 52.0
    assert 25 <= store.asked < 60


def test_what_does_not_pass_is_an_error_in_the_end(clock: Clock) -> None:
    store = Store(clock, 1e9, errno.EBUSY)
    with pytest.raises(OSError, match="not now"):
        store.read("a", suffix="b")
    assert 55.0 < clock.now <= 60.0
    store.patience_seconds = 0.0
    asked = store.asked
    with pytest.raises(OSError, match="not now"):
        store.read("a", suffix="b")
    assert store.asked == asked + 1


def test_what_takes_long_by_itself_is_tried_twice(clock: Clock) -> None:
    store = Store(clock, 1e9, errno.ETIMEDOUT, seconds=300.0)
    with pytest.raises(OSError, match="not now"):
        store.read("a", suffix="b")
    assert store.asked == 2


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EEXIST, errno.EACCES, errno.ENOSPC, None])
def test_what_will_not_change_is_said_at_once(clock: Clock, number: int | None) -> None:
    store = Store(clock, 1e9, number)
    with pytest.raises(OSError):  # noqa: PT011
        store.read("a", suffix="b")
    assert (store.asked, clock.now) == (1, 0.0)


def test_a_search_is_more_patient_than_a_command(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.count()
    monkeypatch.setattr(Remote, "check", lambda store: next(asked) or store.patience_seconds)
    folder = experiment_folder(s3, "x")
    store = store_of(folder)
    assert store
    assert Remote(s3).patience_seconds < store.patience_seconds == LONG_SECONDS
    assert store.under("trials").patience_seconds == LONG_SECONDS


def test_what_is_sent_to_a_store_that_falls_silent_comes_to_an_end(
    s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate, system = Gate(s3_server), pytest.importorskip("s3fs").S3FileSystem
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.address)
    monkeypatch.setattr(patience, "SILENT_SECONDS", 1.0)
    system.clear_instance_cache()  # or fsspec goes on with the server of before
    (tmp_path / "file").write_bytes(b"2")
    store = Remote(s3, patience_seconds=0.0)
    gate.set("swallow")
    try:
        sends = (
            lambda: store.write("a", b"1"),
            lambda: store.create("a", b"1"),
            lambda: store.store(tmp_path / "file", "a"),
        )
        for send in sends:
            with pytest.raises(TimeoutError, match="it did not answer within 1 s") as raised:
                send()
            assert raised.value.errno in PASSING
        gate.set("open")
        monkeypatch.setattr(patience, "SILENT_SECONDS", 60.0)
        store.store(tmp_path / "file", "a")
        assert store.read("a") == b"2"
    finally:
        gate.set("refuse")
        system.clear_instance_cache()
