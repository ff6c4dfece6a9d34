import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundation import (
    Problems,
    RequestError,
    duration,
    fault,
    folder_written_beside,
    printable,
    seed_from,
    this_host,
    unknown_word,
    write_json,
    written_beside,
)


def test_an_unknown_word_gets_its_nearest_neighbour_and_all_that_is_allowed() -> None:
    assert unknown_word("method", "tpa", ["random", "tpe"]) == (
        "method 'tpa' is not known: did you mean 'tpe'? allowed are random, tpe"
    )
    assert unknown_word("method", "zzz", ["tpe"]) == "method 'zzz' is not known: allowed are tpe"


def test_problems_are_raised_all_at_once_or_not_at_all() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add("one")
    problems.add("two")
    with pytest.raises(RequestError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == ("one", "two")


def test_seeds_are_the_same_in_every_process_and_depend_on_every_part() -> None:
    assert seed_from(0, "trial", 1) == 1915347162  # as in every ledger written so far
    seeds = {seed_from(seed, name, trial) for seed in range(3) for name in "ab" for trial in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_from("a", "bc") != seed_from("ab", "c")


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise OSError(errno.ENOSPC, "disk full")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"n": float("nan")})
    with pytest.raises(OSError, match="disk full") as failed, written_beside(path) as beside:
        fail_half_way(beside)
    assert failed.value.filename == str(path)
    assert json.loads(path.read_text()) == {"n": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_takes_the_place_of_the_one_before_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with folder_written_beside(path) as beside:
            (beside / "file").write_text(content)
    with pytest.raises(OSError, match="disk full") as failed, folder_written_beside(path) as beside:
        fail_half_way(beside / "file")
    assert failed.value.filename == str(path)
    assert (path / "file").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_control_characters_are_made_visible() -> None:
    assert printable("a\x1b[31mb\r\nc") == "a\ufffd[31mb\ufffd\nc"


def test_what_a_dead_process_left_beside_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for pid in (done.stdout.strip(), str(os.getppid())):
        (tmp_path / f".cache.{this_host()}.{pid}.tmp").mkdir()
    (tmp_path / f".cache.other-host.{done.stdout.strip()}.tmp").mkdir()
    with folder_written_beside(tmp_path / "cache") as beside:
        (beside / "file").touch()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(
        [f".cache.{this_host()}.{os.getppid()}.tmp", f".cache.other-host.{done.stdout.strip()}.tmp", "cache"]
    )


def test_a_fault_happens_the_nth_time_over_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault("somewhere")  # nothing is asked for
    monkeypatch.setenv("CONVSCOUT_FAULT", "somewhere:memory:3,elsewhere:full:1")
    monkeypatch.setenv("CONVSCOUT_FAULT_COUNTS", str(tmp_path))
    script = "from foundation import fault; fault('somewhere')"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1]).returncode == 0
    fault("somewhere")
    with pytest.raises(MemoryError, match="somewhere"):
        fault("somewhere")
    fault("somewhere")
    with pytest.raises(OSError, match="No space left"):
        fault("elsewhere")


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells the dead that nobody waited for")
def test_what_a_dead_process_left_that_nobody_waited_for_is_removed_too(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        left = tmp_path / f".cache.{this_host()}.{dead.pid}.tmp"
        left.mkdir()
        with folder_written_beside(tmp_path / "cache"):
            assert not left.exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min"),
        (240, "4 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (270000, "3 d 3 h"),
    ],
)
def test_a_duration_is_said_in_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text
