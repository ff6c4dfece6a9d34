"""Kills a search at random for some minutes, lets it finish, and checks that it kept its promises.

`make soak MINUTES=30`, or `python tests/faults/soak.py --minutes 30 --seed 1`. Every 5 to 20 s one process is killed:
the parent, the driver, a worker, the raylet or the head; or the parent is asked to stop. A command that has ended is
followed by `convscout resume`, with more trials when all are done. Exits with 1 if a promise is broken.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[2]
sys.path[:0] = [str(HOUSE), str(HOUSE / "tests" / "faults")]

from processes import Command, rows  # noqa: E402
from promises import broken_promises, random_configurations  # noqa: E402

from cluster.ledger import read_history  # noqa: E402

KINDS = ("parent", "driver", "worker", "worker", "raylet", "head", "gently")
SPACE = "batch_size: 16\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"
FIRST_TRIALS, MORE = 10, ("--trials", "+10")
CHECKPOINT_EVERY = 1.0


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=30)
    asked.add_argument("--seed", type=int, default=int(time.time()))
    options = asked.parse_args()
    chance, killed = random.Random(options.seed), Counter[str]()
    print(f"soak of {options.minutes:g} minutes, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs" / "soak"
        (Path(name) / "space.yaml").write_text(SPACE)
        first = ("search", "digits", "--arch", "cnn", "--method", "random", "--trials", str(FIRST_TRIALS), "--epochs")
        where = ("--name", "soak", "--storage", str(folder.parent), "--space", str(Path(name) / "space.yaml"))
        command = (*first, "12", *where, "--precision", "fp32", "--checkpoint-every", f"{CHECKPOINT_EVERY}s", "--quiet")
        end = time.monotonic() + 60 * options.minutes
        commands, left_behind = 0, 0
        while time.monotonic() < end:
            commands += 1
            left_behind += _run(command, folder, chance, killed, end)
            if rows(folder):
                command = ("resume", str(folder), "--quiet", *((), MORE)[not _unfinished(folder)])
        while _unfinished(folder):
            with Command("resume", str(folder), "--quiet") as last:
                if last.end(3600) != 0:
                    print(last.said)
                    return 1
        return _report(folder, killed, commands, left_behind)


def _run(command: tuple[str, ...], folder: Path, chance: random.Random, killed: Counter[str], end: float) -> int:
    """Run a command, killing what comes of it, until it ends or time is over; return how many processes it left."""
    with Command(*command) as running:
        while running.process.poll() is None:
            next_kill = time.monotonic() + chance.uniform(5, 20)
            while time.monotonic() < next_kill and running.process.poll() is None:
                time.sleep(0.1)
            if time.monotonic() > end:
                running.process.send_signal(signal.SIGINT)
                break
            kind = chance.choice(KINDS)
            pids = running.pids_of("parent" if kind == "gently" else kind)
            if pids and running.process.poll() is None:
                running.process.send_signal(signal.SIGINT) if kind == "gently" else _kill(chance.choice(pids))
                killed[kind] += 1
        code = running.end(120)
        if code not in (0, 1, 130, -signal.SIGKILL):
            raise AssertionError(f"exit code {code}:\n{running.said}")
        if "Traceback" in running.said:
            print(running.said, flush=True)
        running.leaves_nothing()
        return len(running.pids())


def _kill(pid: int) -> None:
    import os
    from contextlib import suppress

    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _unfinished(folder: Path) -> bool:
    history = read_history(folder)
    searched = history.of_role("search")
    return len(searched) < (history.trials_wanted or 0) or any(record.live for record in searched)


def _report(folder: Path, killed: Counter[str], commands: int, left_behind: int) -> int:
    history = read_history(folder)
    searched = history.of_role("search")
    broken = broken_promises(folder, CHECKPOINT_EVERY)
    expected = random_configurations(folder)
    if [record.config for record in searched] != expected:
        broken.append("the configurations are not those of an unkilled search")
    if left_behind:
        broken.append(f"{left_behind} processes were left behind")
    figures: dict[str, Any] = {
        "kills": dict(killed),
        "commands": commands,
        "drivers": history.incarnation,
        "workers lost": sum(len(record.lost) for record in searched),
        "trials": dict(Counter(record.status for record in searched)),
        "epochs": sum(len(record.epochs) for record in searched),
        "attempts": sum(record.attempts for record in searched),
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    for sentence in broken:
        print(f"BROKEN: {sentence}")
    print("every promise was kept" if not broken else f"{len(broken)} promises were broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
