"""Images that TensorBoard shows of a trial, in the run `NNNN/test` below it, which its curves never touch.

They are written once a trial has ended, all of a run at once. What is there already stays as it is, so that writing
them again neither doubles them nor disturbs a TensorBoard that shows them. Others take their place: in an open
TensorBoard at once, or when it is started again where it reads without its data server (`--load_fast=false`).
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.image.metadata import create_summary_metadata

from cluster.event_files import EVENTS, append, begin, file_name, remove_events
from cluster.storage import TRIALS, trial_folder

RUN = "test"


@dataclass(frozen=True)
class BoardImage:
    """One image of a trial: the PNG and its size, under `tag` (what precedes its first "/" names a group).

    `step` is what TensorBoard shows below the tag, an epoch; `description` is Markdown, shown on request.
    """

    tag: str
    png: bytes
    width_px: int
    height_px: int
    step: int
    description: str


def write_images(folder: Path, images: Mapping[int, Sequence[BoardImage]], *, seq: int, time: float) -> None:
    """Write the images of each trial of the experiment in `folder`, in place of all that any of its trials had.

    `seq` is that of the ledger row after which they were made, so that TensorBoard takes a later file for the later
    one; `time` is their time, in seconds of the epoch. Raises OSError where they cannot be written.
    """
    for run in (folder / TRIALS).glob(f"*/{RUN}"):
        if run not in {trial_folder(folder, trial) / RUN for trial in images}:
            shutil.rmtree(run)
    for trial, of_trial in images.items():
        run = trial_folder(folder, trial) / RUN
        beside = run / "new"
        beside.unlink(missing_ok=True)
        begin(beside, time)
        append(beside, [_event(image, time) for image in of_trial])
        if [file.read_bytes() for file in run.glob(f"{EVENTS}*")] == [beside.read_bytes()]:
            beside.unlink()
        else:
            remove_events(run)
            beside.rename(run / file_name(seq))


def _event(image: BoardImage, time: float) -> Any:
    metadata = create_summary_metadata(_text(image.tag), _text(image.description))
    content = [str(image.width_px).encode(), str(image.height_px).encode(), image.png]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(content))])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=content)
    value = Summary.Value(tag=_text(image.tag), metadata=metadata, tensor=tensor)
    return Event(wall_time=time, step=image.step, summary=Summary(value=[value]))


def _text(words: str) -> str:
    """Return words without what cannot be written as UTF-8: a file name may hold any bytes."""
    return words.encode("utf-8", "replace").decode()
