"""`convscout search` on the same images and space: run it, stop it in time, and turn its ledger into the race's log.

It decodes the images itself, and that counts. It also writes the file of first configurations, for the peers.
"""

import shared

# isort: split
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from table import FIRST

CONVSCOUT = shared.HERE.parents[1] / ".venv" / "bin" / "convscout"
NAME = "race"


def search(options: shared.Options, log: shared.Log, storage: Path, more: Sequence[str]) -> None:
    """Run the search, with more options, until the time is over."""
    command = [str(CONVSCOUT), "search", str(options.data / "images"), "--arch", "cnn"]
    command += ["--space", str(shared.SPACE_FILE), "--epochs", str(shared.EPOCHS), "--trials", "1000"]
    command += ["--time-budget", f"{options.seconds:g}s", "--seed", str(options.seed)]
    command += ["--storage", str(storage), "--name", NAME, "--quiet", *more]
    environment = os.environ | {"CONVSCOUT_CACHE": str(storage / "cache")}  # empty: nothing was decoded before
    process = subprocess.Popen(command, env=environment)
    try:
        process.wait(max(log.seconds_left(), 0.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a ledger; a broken last line is ignored."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def main(*more: str) -> None:
    """Search, with more options if there are any, then write the log and the first configurations."""
    options = shared.read_options(__doc__)
    log = shared.open_log(options)
    storage = options.work
    search(options, log, storage, more)
    ledger = Path(shutil.copy(storage / NAME / "ledger.jsonl", options.log.parent))
    rows = read_rows(ledger)
    proposed = {row["trial"]: row for row in rows if row["event"] == "proposed"}
    if not options.first.exists():
        first = [row["config"] for row in proposed.values()][:FIRST]
        options.first.write_text(json.dumps(first, indent=1), encoding="utf-8")
    images = len(shared.read_images(options.data, "train")[1])
    for row in rows:
        seconds = row["time"] - log.start_seconds
        if row["event"] == "epoch" and seconds <= options.seconds:
            epochs, share = proposed[row["trial"]]["work"].get("grace", (0, 1.0))
            trained = round(images * share) if row["epoch"] <= epochs else images
            shared.append_line(options.log, seconds, row["trial"], row["epoch"], trained, row["val_accuracy"] or 0.0)


if __name__ == "__main__":
    main()
