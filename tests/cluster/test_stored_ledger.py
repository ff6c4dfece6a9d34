"""The ledger and the lease of an experiment in an object store: an S3 server, and processes that die."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from cluster import lease
from cluster.ledger import LEDGER, Ledger, fetch_ledger, read_rows
from cluster.lock import Lock, holder
from cluster.naming import run_argument
from cluster.remote import Remote
from cluster.segments import SEGMENTS
from cluster.storage import experiment_folder, find_run, list_runs
from foundation import HaltError, RequestError

HOUSE = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)


def move(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Go on as another host would, which has nothing of the experiment."""
    monkeypatch.setenv("CONVSCOUT_CACHE", str(cache))


def process(script: str, *arguments: str) -> subprocess.Popen[str]:
    head = "import os, signal, sys, time\nfrom pathlib import Path\nfrom cluster.ledger import Ledger\n"
    head += "from cluster.storage import experiment_folder, find_run\nfrom foundation import HaltError\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HOUSE,
    )


def test_rows_are_stored_and_another_host_reads_and_goes_on(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = experiment_folder(s3, "digits")
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="digits", trials=1)
        assert set(Remote(s3).objects("digits/ledger")) == {"digits/ledger/00000001.jsonl"}
        for _ in range(3):
            ledger.append("calibrated")
        assert holder(folder) == os.getpid()
        with pytest.raises(RequestError, match=rf"{s3}/digits is in use by host .*, pid {os.getpid()}"):
            Lock(folder)
    assert holder(folder) is None
    rows = list(read_rows(folder / LEDGER))
    move(monkeypatch, tmp_path / "other")
    there = find_run("digits", s3)
    assert there != folder
    assert list(read_rows(there / LEDGER)) == rows
    assert run_argument(there) == f"{s3}/digits"
    assert find_run(f"{s3}/digits", "runs") == there
    assert [each.name for each in list_runs(s3)] == ["digits"]
    with Ledger(there) as ledger:
        ledger.append("calibrated")


def test_a_driver_killed_between_file_and_store_loses_nothing(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiment_folder(s3, "digits")
    script = """
    import cluster.segments
    cluster.segments.PUSH_SECONDS = 1e9
    ledger = Ledger(experiment_folder(sys.argv[1], "digits"))
    ledger.append("experiment", name="digits", trials=1)
    for _ in range(3): ledger.append("calibrated")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    child = process(script, s3)
    assert child.wait(60) == -signal.SIGKILL
    child.communicate()
    stored = Remote(s3).under("digits")
    assert len(stored.objects(SEGMENTS)) == 1
    assert len(list(read_rows(folder / LEDGER))) == 4
    with (folder / LEDGER).open("ab") as file:
        file.write(b'{"seq": 5, "half')
    with Ledger(folder) as ledger:  # at once: its holder was of this host, and is dead
        assert ledger.history.last_seq == 4
        content = b"".join(stored.read(name) for name in sorted(stored.objects(SEGMENTS)))
        assert content == (folder / LEDGER).read_bytes()


def test_of_two_writers_the_one_whose_segment_is_taken_halts(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiment_folder(s3, "digits")
    stored = Remote(s3).under("digits")
    ledger = Ledger(folder)
    ledger.append("experiment", name="digits", trials=1)
    theirs = b'{"seq": 2, "incarnation": 2, "time": 0, "event": "resumed"}\n'
    stored.create(f"{SEGMENTS}/00000002.jsonl", theirs)
    with pytest.raises(HaltError, match=r"another process writes the ledger of .*digits too \(ledger/00000002"):
        ledger.append("ended")
    with pytest.raises(HaltError, match="this one stops"):
        ledger.close()
    fetch_ledger(folder)
    assert [row["event"] for row in read_rows(folder / LEDGER)] == ["experiment", "resumed"]  # the store is right


def test_a_missing_segment_is_said(s3: str) -> None:
    folder = experiment_folder(s3, "digits")
    with Ledger(folder) as ledger:
        for _ in range(3):
            ledger.append("interrupted")
    Remote(s3).remove("digits/ledger/00000002.jsonl")
    with pytest.raises(RequestError, match=r"ledger/00000002\.jsonl is missing, and ledger/00000003\.jsonl is there"):
        find_run("digits", s3)


def test_another_experiment_of_the_name_takes_the_mirrors_place(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = os.environ["CONVSCOUT_CACHE"]
    for cache, event in ((here, "calibrated"), (str(tmp_path), "resumed")):
        monkeypatch.setenv("CONVSCOUT_CACHE", cache)
        Remote(s3).remove_tree("digits")
        with Ledger(experiment_folder(s3, "digits")) as ledger:
            ledger.append("experiment", name=cache, trials=1)
            ledger.append(event)
    monkeypatch.setenv("CONVSCOUT_CACHE", here)
    assert [row["event"] for row in read_rows(find_run("digits", s3) / LEDGER)] == ["experiment", "resumed"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every other lease be one of another host."""
    monkeypatch.setattr(lease, "is_dead", lambda held: None)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("kind", ["s3", "file"])
def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_finds_out(
    kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = Remote(request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path}")
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1000.0)
    first = lease.Lease(folder, "digits")
    monkeypatch.setattr(lease, "EXPIRE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    said: list[str] = []
    second = lease.Lease(folder, "digits", said.append)
    assert said == [f"digits is in use by {lease.holder_words(first._me)}: waiting up to 0.2 s for a sign of life."]
    lost: list[str] = []
    first.on_lost = lost.append
    first._keep()
    assert first.lost == "digits is no longer held here: another process has taken it over"
    assert lost == [first.lost]
    first._ended.set()
    monkeypatch.setattr(lease, "EXPIRE_SECONDS", 60.0)
    with pytest.raises(RequestError, match=r"digits is in use by host .*: wait, or stop it there"):
        lease.Lease(folder, "digits")  # the second is renewed meanwhile
    second.release()
    assert lease.newest(folder) == (0, None)
    assert second.lost is None


def test_a_holder_that_cannot_reach_the_store_gives_up_before_another_may_take_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert lease.RENEW_SECONDS < lease.GIVE_UP_SECONDS < lease.EXPIRE_SECONDS
    for name, seconds in (("RENEW_SECONDS", 0.01), ("LOOK_SECONDS", 0.01), ("WATCH_SECONDS", 0.01)):
        monkeypatch.setattr(lease, name, seconds)
    held, lost = lease.Lease(Remote(f"file://{tmp_path}"), "digits"), queue.Queue[str]()
    held.on_lost = lost.put
    tried, write = threading.Event(), Remote.write

    def refused(*_: object) -> None:
        tried.set()
        raise TimeoutError("no answer")

    monkeypatch.setattr(Remote, "write", refused)
    assert tried.wait(60)
    assert held.lost is None  # for a while that is no loss
    monkeypatch.setattr(Remote, "write", write)
    seen = lease.newest(held.folder)
    while lease.newest(held.folder) == seen:  # it is renewed again
        assert held.lost is None
    monkeypatch.setattr(lease, "GIVE_UP_SECONDS", 0.2)
    monkeypatch.setattr(Remote, "write", refused)
    assert lost.get(timeout=60) == held.lost == "the storage of digits could not be reached for 0.2 s: no answer"
    held.release()
    assert lost.empty()


def test_a_holder_whose_store_never_answers_gives_up_just_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, seconds in (("RENEW_SECONDS", 0.01), ("WATCH_SECONDS", 0.01), ("RELEASE_SECONDS", 0.01)):
        monkeypatch.setattr(lease, name, seconds)
    held, lost, answered = lease.Lease(Remote(f"file://{tmp_path}"), "digits"), queue.Queue[str](), threading.Event()
    held.on_lost = lost.put
    monkeypatch.setattr(Remote, "write", lambda *_: answered.wait())
    monkeypatch.setattr(lease, "GIVE_UP_SECONDS", 0.2)
    said = "the storage of digits could not be reached for 0.2 s: it did not answer"
    try:
        assert lost.get(timeout=60) == said
        held.release()  # does not wait for the answer either
    finally:
        answered.set()


def test_a_parent_that_loses_the_lease_ends_its_driver(s3: str) -> None:
    script = """
    from cluster import lease
    from cluster.supervise import supervise
    lease.RENEW_SECONDS = 0.05
    def drive(lock):
        with Ledger(folder, lock) as ledger:
            ledger.append("experiment", name="digits", trials=1)
            print("driving", flush=True)
            time.sleep(1000)
    folder = experiment_folder(sys.argv[1], "digits")
    try: supervise(folder, drive, print)
    except HaltError as error: sys.exit(f"halted: {error}")
    """
    parent = process(script, s3)
    try:
        assert parent.stdout
        assert parent.stdout.readline() == "driving\n"
        Remote(s3).create("digits/lease/00000002.json", b"{}")
        said, _ = parent.communicate(timeout=60)
    finally:
        parent.kill()
        parent.communicate()
    assert said == f"halted: {s3}/digits is no longer held here: another process has taken it over\n"
    assert parent.returncode == 1
    assert "digits/lease/00000002.json" in Remote(s3).objects("digits/lease")  # it is not ours to remove


def test_a_lost_lease_halts_the_writer(s3: str) -> None:
    with Ledger(experiment_folder(s3, "digits")) as ledger:
        ledger.append("experiment", name="digits", trials=1)
        assert ledger._lock
        assert ledger._lock.lease
        ledger._lock.lease.lost = "taken over"
        with pytest.raises(HaltError, match="taken over"):
            ledger.append("calibrated")
