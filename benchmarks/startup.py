"""From the command line to the first batch of the first trial, against `import torch, ray; ray.init()`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import HOUSE, Figures, interleaved, options, ratios, table, tell

from trainables.cache import prepare

SEARCH = ("search", "digits", "--arch", "cnn", "--trials", "2", "--epochs", "1", "--quiet")
BARE = "import torch, ray; ray.init()"
SAYS_WHEN = "; import time; print(time.time())"
MOST_SECONDS = 120.0
ROWS = {
    "experiment": "the request is checked, Ray runs",
    "calibrated": "the workers have started, the machine is measured",
    "proposed": "the first trial is proposed",
    "started": "its worker has built the model",
    "first batch": "first batch",
}


def main() -> None:
    """Measure both in turn; the cache of digits is there."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    asked = parser.parse_args()
    rounds = asked.rounds
    marks: list[dict[str, float]] = []
    to_the_end: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["CONVSCOUT_CACHE"] = str(Path(scratch, "cache"))
        prepare("digits")

        def ours() -> float:
            marks.append(_first_batch(Path(scratch, f"runs{len(marks)}")))
            return marks[-1]["first batch"]

        def bare() -> float:
            returned, ended = _bare()
            to_the_end.append(ended)
            return returned

        found = interleaved({"ours": ours, "bare": bare}, rounds, before=0)
    ended = Figures(tuple(to_the_end))
    rows: list[tuple[object, ...]] = [
        (f"`python -c '{BARE}'`, until it has returned", found["bare"], ""),
        ("the same, until the process has ended", ended, ""),
    ]
    before = [0.0] * rounds
    for event, what in ROWS.items():
        after = [each[event] for each in marks]
        rows.append((f"`convscout search`: {what}", Figures(tuple(after)), _difference(after, before)))
        before = after
    for what, bare in (("has returned", found["bare"]), ("has ended", ended)):
        rows.append((f"`convscout search` to the first batch / `ray.init()` {what}", ratios(found["ours"], bare), ""))
    text = table(("", "seconds from the process's start", "of which new"), rows)
    text += (
        f"\n\nMedian (min–max) of {rounds} in turn. `convscout {' '.join(SEARCH)}`, its images decoded before; ended"
    )
    text += " after its first epoch. Its Ray has no dashboard; the other is as Ray starts it."
    tell("startup.py", "From the command line to the first batch", text, asked.keep)


def _difference(after: list[float], before: list[float]) -> Figures:
    return Figures(tuple(a - b for a, b in zip(after, before, strict=True)))


def _bare() -> tuple[float, float]:
    """Return the seconds from the start of `BARE` until `ray.init()` has returned, and until its process has ended."""
    start = time.time()
    done = subprocess.run([sys.executable, "-c", BARE + SAYS_WHEN], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) - start, time.time() - start


def _first_batch(storage: Path) -> dict[str, float]:
    """Start a search, wait for its first epoch, end it, and return seconds from its start to each of `ROWS`."""
    storage.mkdir()
    command = [sys.executable, str(HOUSE / "convscout.py"), *SEARCH, "--storage", str(storage), "--name", "startup"]
    with open(storage / "output", "w+") as output:
        start = time.time()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            rows = _until_epoch(storage / "startup" / "ledger.jsonl", process)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {(storage / 'output').read_text()[-2000:]}") from error
        finally:
            _end(process)
    first = {row["event"]: row for row in reversed(rows)}
    marks = {event: first[event]["time"] - start for event in ROWS if event in first}
    return marks | {"first batch": first["epoch"]["time"] - first["epoch"]["seconds"] - start}


def _until_epoch(ledger: Path, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        text = ledger.read_text() if ledger.exists() else ""
        if '"event": "epoch"' in text and text.endswith("\n"):
            return [json.loads(line) for line in text.splitlines()]
        if process.poll() is not None:
            raise RuntimeError("the search ended before its first epoch")
        time.sleep(0.2)
    raise RuntimeError(f"no epoch within {MOST_SECONDS:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a search gently, with Ray's processes; hard where it does not listen."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
