"""How many trials an experiment is to have when it is extended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.ledger import Ledger, read_history
from cluster.session import Tell, note_resumed
from foundation import RequestError
from search.request import Request, possible


def trials_wanted(folder: Path, asked: str | None) -> str | None:
    """Return what `--trials` of resume asks for as a number in all, whatever is added to the experiment meanwhile."""
    return asked and str(trials_in_all(asked, read_history(folder).trials_wanted or 0))


def trials_in_all(asked: str | None, before: int) -> int:
    """Return the number of trials that `--trials` of resume asks for, given how many there were to be before."""
    if asked is None:
        return before
    if not asked.removeprefix("+").isdigit():
        raise RequestError(f"--trials {asked!r}: write +20 for twenty more, or 60 for sixty in all")
    wanted = before + int(asked) if asked.startswith("+") else int(asked)
    if wanted < before:
        raise RequestError(f"--trials {asked}: the experiment already has {before} trials, it cannot shrink")
    return wanted


def note_extended(ledger: Ledger, request: Request, experiment: Mapping[str, Any], asked: int, tell: Tell) -> None:
    """Note in the ledger that another process goes on, and with how many of the trials asked for in all."""
    note_resumed(ledger, experiment, tell)
    trials = possible(asked, request.spec, request.spaces, tell)
    if trials != ledger.history.trials_wanted:
        ledger.append("extended", trials=trials)
