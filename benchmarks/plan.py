"""How far `convscout plan` was from what then happened, on three searches."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import HOUSE, ZIP, options, seconds_of, table, tell

from cluster.ledger import read_history

SEARCHES = {
    "digits, cnn and alexnet, random": ("digits", "--arch", "cnn", "--arch", "alexnet", "--method", "random")
    + ("--trials", "8", "--epochs", "3"),
    "digits, alexnet, asha": ("digits", "--arch", "alexnet", "--method", "asha", "--trials", "20", "--epochs", "9"),
    "CIFAR-10's zip, cnn, tpe_asha": (str(ZIP), "--arch", "cnn", "--method", "tpe_asha")
    + ("--trials", "10", "--epochs", "3", "--test-fraction", "0.5", "--val-fraction", "0.5", "--time-budget", "5m"),
}


def main() -> None:
    """Plan each search, then run it; one of them on CIFAR-10 where it is at hand."""
    keep = options(__doc__).parse_args().keep
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, asked in SEARCHES.items():
            if asked[0] != "digits" and not ZIP.exists():
                print(f"{name}: left out, {ZIP} is not there", file=sys.stderr)
                continue
            rows.append((name, *_compared(asked, Path(scratch))))
    columns = ("search", "planned, s", "took, s", "took / planned", "epochs planned", "epochs run")
    text = table(columns, rows)
    text += "\n\nEach planned once and then run once; the median planned, and in brackets what 9 of 10 are to lie in."
    tell("plan.py", "What was planned, and what it took", text, keep)


def _compared(asked: tuple[str, ...], scratch: Path) -> tuple[str, ...]:
    """Return the cells of a row: what was planned of the search, and what came of it."""
    where = ("--storage", str(scratch), "--name", f"x{len(list(scratch.iterdir()))}")
    plan: dict[str, Any] = json.loads(_convscout("plan", *asked, *where, "--json"))
    seconds = seconds_of(lambda: _convscout("search", *asked, *where, "--quiet"))
    history = read_history(scratch / where[-1])
    epochs = sum(len(record.epochs) for record in history.of_role("search"))
    return (
        _span(plan["seconds"]),
        f"{seconds:.0f}",
        f"{seconds / plan['seconds']['middle']:.2f}",
        _span(plan["epochs"]),
        str(epochs),
    )


def _convscout(*arguments: str) -> str:
    command = [sys.executable, str(HOUSE / "convscout.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _span(span: dict[str, float]) -> str:
    return f"{span['middle']:.0f} [{span['low']:.0f} to {span['high']:.0f}]"


if __name__ == "__main__":
    main()
