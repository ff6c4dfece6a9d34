"""TensorBoard's event files: how one is begun, added to and removed. None is kept open between two calls."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

EVENTS = "events.out.tfevents."


def file_name(seq: int) -> str:
    """Return the name of event files begun at a ledger row; TensorBoard reads a run's files in the order of names."""
    return f"{EVENTS}{seq:010d}"


def begin(file: Path, time: float) -> None:
    """Start an event file of a run. What TensorBoard read from earlier files of the run, the START record undoes."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # not above: every command imports this file

    file.parent.mkdir(parents=True, exist_ok=True)
    version = Event(wall_time=time, file_version="brain.Event:2")
    append(file, [version, Event(wall_time=time, session_log=SessionLog(status=SessionLog.START))])


def append(file: Path, events: Iterable[Any]) -> None:
    """Add events to the end of a file."""
    from tensorboard.summary.writer.record_writer import RecordWriter  # it takes half as long as all else before Ray

    with open(file, "ab") as opened:
        writer = RecordWriter(opened)
        for event in events:
            writer.write(event.SerializeToString())


def remove_events(folder: Path) -> None:
    """Remove the event files of one run, since of two ends or two lists of columns TensorBoard takes the first.

    Files without an end stay: a TensorBoard that is reading them finds its way to the next one only from there.
    """
    for file in folder.glob(f"{EVENTS}*"):
        file.unlink()
