"""Whatever a crash leaves of a ledger, its replay is a state that there was."""

import tempfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.history import History
from cluster.ledger import LEDGER, Ledger, read_history, read_rows

EVENTS = st.sampled_from(["started", "epoch", "checkpoint", "decision", "lost", "ended", "reopened", "interrupted"])
ACTIONS = st.lists(st.tuples(EVENTS, st.integers(0, 3), st.booleans()), max_size=25)


def state(history: History) -> dict[str, Any]:
    """Return all that a history says, as plain values."""
    known = {name: value for name, value in vars(history).items() if name != "_fold"}
    return {name: plain(value) for name, value in known.items()}


def plain(value: Any) -> Any:
    """Return a value without objects."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, set | array | list | tuple):
        return [plain(each) for each in (sorted(value) if isinstance(value, set) else value)]
    return plain(vars(value)) if hasattr(value, "__dict__") else repr(value)


def write(ledger: Ledger, event: str, trial: int, new: bool) -> None:
    history = ledger.history
    if new or trial not in history.trials:
        work = {"epochs": 9, "schedule_epochs": 9}
        about = {"role": "search", "architecture": "cnn", "config": {"x": 1.5}, "seed": 1, "method": "random"}
        ledger.append("proposed", trial=history.next_trial(), work=work, **about)
        return
    record = history.trials[trial]
    match event:
        case "epoch":
            values = {"val_loss": 0.5, "val_accuracy": 0.5, "seconds": 1.0}
            ledger.append(event, trial=trial, attempt=record.attempts, epoch=len(record.epochs) + 1, **values)
        case "started":
            ledger.append(event, trial=trial, attempt=record.attempts + 1, n_params=5)
        case "lost":
            fields = {"cause": "died", "charged": True, "alone": False, "error": "\u2028 é \n"}
            ledger.append(event, trial=trial, attempt=record.attempts, **fields)
        case "ended":
            ledger.append(event, trial=trial, status="completed", stop_reason="all", error=None)
        case "interrupted":
            ledger.append(event)
        case _:
            ledger.append(event, trial=trial, attempt=1, epoch=1, rung=True, decision="continue", status="stopped")


@settings(max_examples=60, deadline=None)
@given(lives=st.lists(ACTIONS, min_size=1, max_size=3), share=st.floats(0, 1))
def test_any_truncation_replays_to_a_state_that_there_was_and_can_be_gone_on_from(
    lives: list[list[tuple[str, int, bool]]], share: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        states = [state(History())]
        for actions in lives:
            with Ledger(folder) as ledger:
                for action in actions:
                    write(ledger, *action)
                    states.append(state(ledger.history))
        assert state(read_history(folder)) == states[-1]
        whole = (folder / LEDGER).read_bytes()
        cut = round(share * len(whole))
        (folder / LEDGER).write_bytes(whole[:cut])
        assert state(read_history(folder)) == states[whole[:cut].count(b"\n")]
        with Ledger(folder) as again:
            again.append("interrupted")
        assert [row["seq"] for row in read_rows(folder / LEDGER)] == list(range(1, whole[:cut].count(b"\n") + 2))
