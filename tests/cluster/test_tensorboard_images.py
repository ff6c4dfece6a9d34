from pathlib import Path

import pytest
from observed_run import ObservedRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.image.metadata import PLUGIN_NAME

from cluster.tensorboard import TensorBoardWriter
from cluster.tensorboard_images import BoardImage, write_images

TIME = 1_700_000_500.0


def image(tag: str = "confusion_matrix", png: bytes = b"PNG", description: str = "what it shows") -> BoardImage:
    return BoardImage(tag, png, 320, 200, 17, description)


def files(folder: Path, run: str) -> list[str]:
    return sorted(path.name for path in (folder / "trials" / run).iterdir())


def shown(folder: Path, run: str) -> dict[str, list[tuple[int, list[bytes]]]]:
    """The step and the content of all that TensorBoard's reader finds in a run, by tag."""
    events = EventAccumulator(str(folder / "trials" / run)).Reload()
    return {
        tag: [(event.step, list(event.tensor_proto.string_val)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_images_are_read_back_with_size_step_time_and_description(tmp_path):
    write_images(tmp_path, {7: [image(), image("worst_mistakes/01: a", b"PNG 2")]}, seq=12, time=TIME)
    assert shown(tmp_path, "0007/test") == {
        "confusion_matrix": [(17, [b"320", b"200", b"PNG"])],
        "worst_mistakes/01: a": [(17, [b"320", b"200", b"PNG 2"])],
    }
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "trials")).Reload()
    assert multiplexer.Runs()["0007/test"]["tensors"] == ["confusion_matrix", "worst_mistakes/01: a"]
    metadata = multiplexer.SummaryMetadata("0007/test", "confusion_matrix")
    assert metadata.plugin_data.plugin_name == PLUGIN_NAME
    assert metadata.summary_description == "what it shows"
    assert multiplexer.Tensors("0007/test", "confusion_matrix")[0].wall_time == TIME


def test_the_same_images_again_leave_the_file_alone(tmp_path):
    write_images(tmp_path, {7: [image()]}, seq=12, time=TIME)
    (file,) = (tmp_path / "trials" / "0007" / "test").iterdir()
    before = file.stat()
    write_images(tmp_path, {7: [image()]}, seq=20, time=TIME)
    assert files(tmp_path, "0007/test") == ["events.out.tfevents.0000000012"]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_images_take_their_place_and_that_of_other_trials(tmp_path):
    write_images(tmp_path, {7: [image()], 8: [image()]}, seq=12, time=TIME)
    write_images(tmp_path, {7: [image(png=b"new")], 9: [image()]}, seq=20, time=TIME)
    assert shown(tmp_path, "0007/test") == {"confusion_matrix": [(17, [b"320", b"200", b"new"])]}
    assert files(tmp_path, "0007/test") == ["events.out.tfevents.0000000020"]
    assert not (tmp_path / "trials" / "0008" / "test").exists()
    assert list(shown(tmp_path, "0009/test")) == ["confusion_matrix"]


def test_what_a_killed_process_left_is_replaced(tmp_path):
    write_images(tmp_path, {7: [image()]}, seq=12, time=TIME)
    run = tmp_path / "trials" / "0007" / "test"
    (run / "new").write_bytes(b"half a rec")
    (run / "events.out.tfevents.0000000012").write_bytes(b"torn")
    write_images(tmp_path, {7: [image()]}, seq=13, time=TIME)
    assert files(tmp_path, "0007/test") == ["events.out.tfevents.0000000013"]
    assert len(shown(tmp_path, "0007/test")["confusion_matrix"]) == 1


def test_a_trial_that_is_written_again_keeps_its_images(tmp_path):
    (tmp_path / "trials").mkdir()
    run = ObservedRun(TensorBoardWriter(tmp_path, {}, "val_accuracy"))
    trial = run.begin()
    run.epoch(trial)
    run.end(trial, "lost", error="3 attempts failed")
    write_images(tmp_path, {trial: [image()]}, seq=run.history.last_seq, time=TIME)
    run.history.trials[trial].status = None  # as a `reopened` row does
    run.epoch(trial, val_accuracy=0.75)
    run.end(trial)
    run.resume(TensorBoardWriter(tmp_path, {}, "val_accuracy"))
    run.write("resumed")
    assert shown(tmp_path, "0000/test") == {"confusion_matrix": [(17, [b"320", b"200", b"PNG"])]}
    assert len(EventAccumulator(str(tmp_path / "trials" / "0000" / "val")).Reload().Scalars("loss")) == 2


def test_names_that_are_no_text_are_written_all_the_same(tmp_path):
    write_images(tmp_path, {7: [image("worst_mistakes/01: \udcff", description="\udcff.png")]}, seq=1, time=TIME)
    assert list(shown(tmp_path, "0007/test")) == ["worst_mistakes/01: ?"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "0007").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="0007"):
        write_images(tmp_path, {7: [image()]}, seq=1, time=TIME)
