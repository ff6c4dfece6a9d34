"""A full disk and a storage that is gone: one sentence, a clean stop, everything so far readable, and on it goes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Command, rows
from promises import broken_promises

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, leave_bytes: int) -> Path:
    filler = folder / "filler"
    with open(filler, "wb") as file:
        while (free := shutil.disk_usage(folder).free) > leave_bytes:
            file.write(b"x" * min(65536, free - leave_bytes))
            file.flush()
    return filler


def test_a_disk_that_fills_up_stops_the_search_with_one_sentence_and_freeing_it_goes_on(
    small_disk: Path, asked
) -> None:
    folder = small_disk / "x"
    arguments = asked("--storage", str(small_disk), epochs=40)
    with Command(*arguments) as running:
        running.until_row(folder, event="epoch", epoch=2)
        filler = fill(small_disk, 0)
        assert running.end() == 1
        assert running.leaves_nothing()
    errors = [line for line in running.said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert str(folder) in errors[0]
    assert "No space left on device. Stopped; everything up to here is kept" in errors[0]
    assert errors[0].endswith(f"once that is mended, go on with: convscout resume {folder}")
    assert "Traceback" not in running.said
    assert "starts again" not in running.said
    known = rows(folder)
    assert any(row["event"] == "epoch" for row in known)
    filler.unlink()
    with Command("resume", str(folder)) as resumed:
        assert resumed.end() == 0, resumed.said
    assert rows(folder)[: len(known)] == known
    assert broken_promises(folder) == []


def test_a_storage_that_disappears_stops_the_search_with_its_path(storage: Path, asked, tmp_path: Path) -> None:
    folder = storage / "x"
    with Command(*asked(epochs=200)) as running:
        running.until_row(folder, event="epoch", epoch=2)
        storage.rename(tmp_path / "elsewhere")
        assert running.end() == 1
        assert running.leaves_nothing()
    errors = [line for line in running.said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "No such file or directory" in errors[0]
    assert str(folder) in errors[0]
    shutil.rmtree(storage, ignore_errors=True)  # what was written to where it had been, as under an unmounted disk
    (tmp_path / "elsewhere").rename(storage)
    assert [row["epoch"] for row in rows(folder) if row["event"] == "epoch" and row["trial"] == 0][:2] == [1, 2]
    with Command("resume", str(folder), "--time-budget", "1s") as resumed:
        assert resumed.end() == 0, resumed.said


def test_a_checkpoint_that_cannot_be_written_stops_the_search(storage: Path, asked, plant) -> None:
    with Command(*asked("--checkpoint-every", "0s"), environment=plant("checkpoint.before_write:full:2")) as running:
        assert running.end() == 1
    assert running.said.count("error:") == 1
    assert "No space left on device" in running.said
    with Command(*asked()) as resumed:
        assert resumed.end() == 0, resumed.said
    assert broken_promises(storage / "x") == []


def test_an_analysis_on_a_full_disk_says_so_in_one_sentence_and_goes_on_when_there_is_room(
    small_disk: Path, asked
) -> None:
    folder = small_disk / "x"
    analyze = ("analyze", str(folder), "--finalists", "1", "--seeds", "1")
    with Command(*asked("--storage", str(small_disk), epochs=3)) as search:
        assert search.end() == 0, search.said
    _refused_for_lack_of_room(analyze, folder)  # of the first training's first row
    with Command(*analyze) as analysis:
        assert analysis.end() == 0, analysis.said
    for product in ("analysis.json", "report.html", "test_predictions.npz"):
        (folder / product).unlink()
    _refused_for_lack_of_room(analyze, folder)  # of the predictions, when all is trained
    with Command(*analyze) as analysis:
        assert analysis.end() == 0, analysis.said
    assert (folder / "report.html").exists()
    assert [row["event"] for row in rows(folder)].count("test_opened") == 1
    assert broken_promises(folder) == []


def _refused_for_lack_of_room(command: tuple[str, ...], folder: Path) -> None:
    known = rows(folder)
    filler = fill(folder.parent, 0)
    with Command(*command) as full:
        assert full.end() == 1, full.said
        assert full.leaves_nothing()
    filler.unlink()
    errors = [line for line in full.said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, full.said
    assert "No space left on device" in errors[0]
    assert str(folder) in errors[0]
    assert errors[0].endswith(f"convscout.py {' '.join(command)}")
    assert "Traceback" not in full.said
    assert rows(folder)[: len(known)] == known
