"""Signals and a second command, while images are decoded and while trials run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import HOUSE, Command
from promises import broken_promises

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_end_while_images_are_decoded_leaves_nothing_behind(
    storage: Path, asked, plant, tmp_path: Path, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    environment = {"CONVSCOUT_CACHE": str(cache)}
    with Command(*asked(), environment=environment | plant("folder.before_rename:hang:1")) as running:
        running.until(lambda: list(cache.glob(".*.tmp/manifest.json")))
        running.kill("parent", number)
        assert running.end(40) == (130 if number != signal.SIGKILL else -number)
    assert bool(list(cache.iterdir())) is (number == signal.SIGKILL)
    assert list(storage.glob("x/*")) == ([] if number != signal.SIGKILL else [storage / "x" / "ledger.lock"])
    with Command(*asked(), environment=environment) as again:
        assert again.end() == 0, again.said
    assert list(cache.glob(".*.tmp")) == []
    assert broken_promises(storage / "x") == []


def test_stop_ends_a_search_that_still_decodes(storage: Path, asked, plant, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = {"CONVSCOUT_CACHE": str(cache)}
    with Command(*asked(), environment=environment | plant("folder.before_rename:hang:1")) as running:
        running.until(lambda: list(cache.glob(".*.tmp/manifest.json")))
        with Command("stop", "x", "--storage", str(storage)) as stopping:
            assert stopping.end() == 0
        assert f"Asked process {running.process.pid} to stop; nothing has been trained yet." in stopping.said
        assert running.end(40) == 130
    assert list(storage.glob("x/*")) == list(cache.iterdir()) == []
    with Command("stop", "x", "--storage", str(storage)) as stopping:
        assert stopping.end() == 2


def test_ctrl_c_twice_ends_at_once_and_the_search_goes_on_later(storage: Path, asked, plant) -> None:
    with Command(*asked(), environment=plant("trial.epoch:hang:3")) as running:
        running.until_row(storage / "x", event="epoch", epoch=2)
        running.kill("parent", signal.SIGINT)
        asked_at = time.monotonic()
        running.until(lambda: time.monotonic() - asked_at > 1.0)  # within a second it would be an echo of the first
        if running.process.poll() is None:
            running.kill("parent", signal.SIGINT)
        assert running.end(40) == 130
        assert running.leaves_nothing()
    assert "Traceback" not in running.said
    with Command(*asked()) as again:
        assert again.end() == 0, again.said
    assert broken_promises(storage / "x") == []


def test_a_second_command_is_told_who_holds_the_experiment_and_stop_ends_it(storage: Path, asked) -> None:
    with Command(*asked(epochs=500)) as running:
        running.until_row(storage / "x", event="epoch", epoch=1)
        for arguments in (asked(epochs=500), ("resume", str(storage / "x")), ("analyze", str(storage / "x"))):
            with Command(*arguments) as second:
                assert second.end() == 2
            assert "is in use by host" in second.said
            assert f"pid {running.process.pid}, since 20" in second.said
            assert f"`convscout stop {storage / 'x'}`" in second.said.replace("\n", "")
        command = [sys.executable, str(HOUSE / "convscout.py"), "stop", str(storage / "x")]
        subprocess.run(command, check=True, capture_output=True)
        assert running.end(40) == 130
        assert running.leaves_nothing()
    assert f"Go on with: convscout resume {storage / 'x'}" in running.said


def test_another_request_under_the_same_name_is_refused_with_the_differences(storage: Path, asked) -> None:
    with Command(*asked(epochs=2)) as first:
        assert first.end() == 0, first.said
    with Command(*asked("--seed", "5", epochs=3)) as second:
        assert second.end() == 2
    said = " ".join(second.said.split())
    assert "epochs: the experiment has 2, now asked 3" in said
    assert "seed: the experiment has 0, now asked 5" in said
