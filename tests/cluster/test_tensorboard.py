import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from observed_run import ObservedRun
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as ExperimentHandler
from tensorboard.plugins.hparams.list_session_groups import Handler as SessionsHandler

from cluster.ledger import Ledger
from cluster.tensorboard import TensorBoardWriter
from foundation import lives

DECLARED = {"learning_rate": (1e-4, 1.0), "optimizer": ("sgd", "adam"), "batch_size": (16, 256), "batch_norm": (True,)}
STATUSES = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "trials").mkdir()
    return tmp_path


def writer_of(folder: Path, metric: str = "val_accuracy") -> TensorBoardWriter:
    return TensorBoardWriter(folder, DECLARED, metric)


def events_of(folder: Path, run: str) -> EventAccumulator:
    return EventAccumulator(str(folder / "trials" / run)).Reload()


def curve(folder: Path, run: str, tag: str) -> dict[int, float]:
    """The points of a curve by step; a step that is there twice fails the test."""
    events = events_of(folder, run).Scalars(tag)
    assert len({event.step for event in events}) == len(events)
    return {event.step: pytest.approx(event.value) for event in events}


def hparams_tab(folder: Path) -> SimpleNamespace:
    """What TensorBoard's own backend answers for the HParams tab."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder / "trials")).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder / "trials"))
    backend, context = Context(TBContext(data_provider=provider)), RequestContext()
    experiment_request = api_pb2.GetExperimentRequest(include_metrics=True)
    experiment = ExperimentHandler(context, backend, "", experiment_request).run()
    names = [info.name for info in experiment.metric_infos]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=1000,
        allowed_statuses=STATUSES,
        include_metrics=True,
        col_params=[api_pb2.ColParams(metric=name) for name in names],
    )
    groups = SessionsHandler(context, backend, "", request).run().session_groups
    sessions = {}
    for group in groups:
        (session,) = group.sessions
        hparams = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
        metrics = {value.name.tag: pytest.approx(value.value) for value in session.metric_values}
        sessions[session.name] = SimpleNamespace(hparams=hparams, metrics=metrics, status=session.status)
    columns = {info.name: info for info in experiment.hparam_infos}
    return SimpleNamespace(sessions=sessions, columns=columns, metrics=[name.tag for name in names])


def outcome(folder: Path, run: str) -> str:
    (event,) = events_of(folder, run).Tensors("outcome")
    return event.tensor_proto.string_val[0].decode()


def test_train_and_val_share_their_tags_and_every_epoch_is_there_at_once(folder):
    run = ObservedRun(writer_of(folder))
    trial = run.begin()
    run.epoch(trial, val_accuracy=0.5)
    run.epoch(trial, val_accuracy=0.4, train_loss=1.25, learning_rate=0.005)
    # nothing was closed: a killed driver leaves this
    assert curve(folder, "0000/train", "loss") == {1: 1.5, 2: 1.25}
    assert curve(folder, "0000/val", "loss") == {1: 1.5, 2: 1.6}
    assert curve(folder, "0000/train", "accuracy") == {1: 0.75, 2: 0.75}
    assert curve(folder, "0000/val", "accuracy") == {1: 0.5, 2: 0.4}
    assert curve(folder, "0000", "learning_rate") == {1: 0.01, 2: 0.005}
    assert curve(folder, "0000", "images_per_second") == {1: 1234.5, 2: 1234.5}
    assert sorted(events_of(folder, "0000/val").Tags()["scalars"]) == ["accuracy", "loss"]


def test_points_have_the_time_of_their_row(folder):
    run = ObservedRun(writer_of(folder))
    row = run.epoch(run.begin())
    assert events_of(folder, "0000/val").Scalars("loss")[0].wall_time == row["time"]


def test_hparams_lists_every_trial_whatever_its_end(folder):
    run = ObservedRun(writer_of(folder))
    ends = ("completed", "stopped", "diverged", "out_of_memory", "infeasible", "data_error", "lost", None)
    for number, status in enumerate(ends):
        trial = run.begin("cnn" if number % 2 else "vgg11", learning_rate=0.001 * (number + 1))
        if status != "infeasible":
            run.epoch(trial, val_accuracy=0.25)
            run.epoch(trial, val_accuracy=0.5 + number / 100)
            run.epoch(trial, val_accuracy=0.375)
        if status:
            run.end(trial, status, error="it failed")
    tab = hparams_tab(folder)
    assert sorted(tab.sessions) == [f"{number:04d}" for number in range(8)]
    assert tab.metrics == ["best/val_loss", "best/val_accuracy", "epochs_run"]
    for number, status in enumerate(ends):
        session = tab.sessions[f"{number:04d}"]
        assert session.hparams == {
            "architecture": "cnn" if number % 2 else "vgg11",
            "role": "search",
            "learning_rate": 0.001 * (number + 1),
            "optimizer": "adam",
            "batch_size": 64.0,
            "batch_norm": True,
        }
        best = {"best/val_loss": 1.5 - number / 100, "best/val_accuracy": 0.5 + number / 100, "epochs_run": 3}
        assert session.metrics == ({} if status == "infeasible" else best)
        success, failure = api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE
        ended = success if status in ("completed", "stopped") else failure
        assert session.status == (ended if status else api_pb2.STATUS_UNKNOWN)


def test_the_best_epoch_is_that_of_the_metric_asked_for(folder):
    run = ObservedRun(writer_of(folder, metric="val_macro_f1"))
    trial = run.begin()
    run.epoch(trial, val_accuracy=0.9, val_macro_f1=0.2)
    run.epoch(trial, val_accuracy=0.5, val_macro_f1=0.6)
    run.end(trial)
    metrics = hparams_tab(folder).sessions["0000"].metrics
    assert metrics == {"best/val_loss": 1.5, "best/val_accuracy": 0.5, "best/val_macro_f1": 0.6, "epochs_run": 2}
    assert curve(folder, "0000/val", "macro_f1") == {1: 0.2, 2: 0.6}


def test_numbers_that_were_not_finite_are_absent(folder):
    run = ObservedRun(writer_of(folder))
    trial = run.begin()
    run.epoch(trial, val_accuracy=0.3)
    run.epoch(trial, val_accuracy=None, train_loss=None)
    run.end(trial, "diverged", error="train_loss is not finite")
    assert curve(folder, "0000/train", "loss") == {1: 1.5}
    assert curve(folder, "0000/train", "accuracy") == {1: 0.75, 2: 0.75}
    assert hparams_tab(folder).sessions["0000"].metrics["best/val_accuracy"] == 0.3
    assert "train_loss is not finite" in outcome(folder, "0000")


def test_the_outcome_says_how_and_why_a_trial_ended(folder):
    run = ObservedRun(writer_of(folder))
    trial = run.begin()
    run.end(trial, "stopped", reason="stopped at epoch 4: val_loss 1.92, the cutoff of 12 trials was 1.61")
    assert outcome(folder, "0000") == (
        "**stopped**: trial 0, cnn, search, seed 0\n\n"
        "stopped at epoch 4: val_loss 1.92, the cutoff of 12 trials was 1.61"
    )
    trial = run.begin()
    run.end(trial, "lost", error="x" * 9000 + "\nActorDiedError: <b>gone</b>")
    text = outcome(folder, "0001")
    assert text.endswith("x\n    ActorDiedError: <b>gone</b>")
    assert len(text) < 4200


def test_columns_have_types_and_ranges_that_leave_no_trial_out(folder):
    run = ObservedRun(writer_of(folder))
    run.begin(learning_rate=5.0, optimizer="lion", trainable_layers=20, kernels=[3, 5])
    run.begin(trainable_layers="all")
    columns = hparams_tab(folder).columns
    assert columns["learning_rate"].type == api_pb2.DATA_TYPE_FLOAT64
    assert columns["learning_rate"].domain_interval.min_value == 1e-4
    assert columns["learning_rate"].domain_interval.max_value == 5.0
    assert list(columns["optimizer"].domain_discrete) == ["sgd", "adam", "lion"]
    assert columns["batch_norm"].type == api_pb2.DATA_TYPE_BOOL
    assert columns["kernels"].type == api_pb2.DATA_TYPE_STRING
    assert columns["trainable_layers"].type == api_pb2.DATA_TYPE_STRING
    assert not columns["trainable_layers"].HasField("domain_discrete")
    assert "momentum" not in columns
    assert list(columns["role"].domain_discrete) == ["search", "retrain", "final", "ablation", "reproduce"]


def test_a_knob_that_may_be_a_number_or_a_word_is_a_word_in_every_trial(folder):
    run = ObservedRun(TensorBoardWriter(folder, {"trainable_layers": (0, 20, "all")}, "val_accuracy"))
    run.begin(trainable_layers=20)
    run.begin(trainable_layers="all")
    sessions = hparams_tab(folder).sessions
    assert [session.hparams["trainable_layers"] for session in sessions.values()] == ["20", "all"]


def test_a_resumed_run_adds_epochs_without_doubling_any(folder):
    run = ObservedRun(writer_of(folder))
    ended, live = run.begin(), run.begin()
    for trial in (ended, live):
        run.epoch(trial, val_accuracy=0.5)
    run.end(ended)
    before = sorted(path.name for path in (folder / "trials" / "0000").iterdir())
    run.resume(writer_of(folder))
    run.write("resumed")
    run.start(live, attempt=2)
    run.epoch(live, val_accuracy=0.6)
    run.end(live)
    assert curve(folder, "0001/val", "accuracy") == {1: 0.5, 2: 0.6}
    assert curve(folder, "0000/val", "accuracy") == {1: 0.5}
    assert sorted(path.name for path in (folder / "trials" / "0000").iterdir()) == before
    sessions = hparams_tab(folder).sessions
    assert [session.metrics["best/val_accuracy"] for session in sessions.values()] == [0.5, 0.6]
    assert {session.status for session in sessions.values()} == {api_pb2.STATUS_SUCCESS}


@pytest.mark.parametrize("first_row", ["resumed", "started", "epoch", "ended"])
def test_what_the_earlier_driver_did_not_write_is_written_by_the_next(folder, first_row):
    run = ObservedRun(writer_of(folder))
    lost_end, lost_epoch = run.begin(), run.begin()
    run.epoch(lost_end, val_accuracy=0.5)
    run.epoch(lost_epoch, val_accuracy=0.5)
    run.observers = []  # the driver was killed after the ledger had these rows
    run.end(lost_end, "diverged", error="loss is not finite")
    run.epoch(lost_epoch, val_accuracy=0.625)
    run.begin("vgg11")
    run.resume(writer_of(folder))
    if first_row == "resumed":
        run.write("resumed")
    elif first_row == "started":
        run.start(lost_epoch)
    elif first_row == "epoch":
        run.epoch(lost_epoch, val_accuracy=0.25)
    run.end(lost_epoch, "completed")
    expected = {1: 0.5, 2: 0.625} | ({3: 0.25} if first_row == "epoch" else {})
    assert curve(folder, "0001/val", "accuracy") == expected
    sessions = hparams_tab(folder).sessions
    assert {name: session.status for name, session in sessions.items()} == {
        "0000": api_pb2.STATUS_FAILURE,
        "0001": api_pb2.STATUS_SUCCESS,
        "0002": api_pb2.STATUS_UNKNOWN,
    }
    assert "loss is not finite" in outcome(folder, "0000")
    assert sessions["0002"].hparams["architecture"] == "vgg11"


def test_a_trial_that_goes_on_after_its_end_has_one_curve_and_its_new_end(folder):
    run = ObservedRun(writer_of(folder))
    trial = run.begin()
    run.epoch(trial, val_accuracy=0.5)
    run.end(trial, "lost", error="3 attempts failed")
    run.history.trials[trial].status = None  # as a `reopened` row does
    run.epoch(trial, val_accuracy=0.75)
    run.end(trial, "completed", reason="all 2 epochs")
    assert curve(folder, "0000/val", "accuracy") == {1: 0.5, 2: 0.75}
    assert outcome(folder, "0000").endswith("all 2 epochs")
    assert hparams_tab(folder).sessions["0000"].status == api_pb2.STATUS_SUCCESS


def test_a_torn_last_record_is_repaired_on_resume(folder):
    run = ObservedRun(writer_of(folder))
    trial = run.begin()
    run.epoch(trial, val_accuracy=0.5)
    (file,) = (folder / "trials" / "0000" / "val").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    run.resume(writer_of(folder))
    run.epoch(trial, val_accuracy=0.75)
    assert curve(folder, "0000/val", "accuracy") == {1: 0.5, 2: 0.75}


def test_rejected_configurations_and_refused_epochs_leave_nothing(folder):
    writer = writer_of(folder)
    run = ObservedRun(writer)
    run.write("rejected", trial=0, architecture="cnn", draw=0, config={}, why="kernel larger than the image")
    trial = run.begin()
    run.epoch(trial)
    run.epoch(trial, attempt=7)
    run.write("checkpoint", trial=trial, attempt=1, epoch=1, path="p", sha256="s")
    run.end(trial)
    run.write("checkpoint", trial=trial, attempt=1, epoch=1, path="p", sha256="s")
    assert not writer.failed
    assert curve(folder, "0000/val", "loss") == {1: 1.5}
    assert [path.name for path in (folder / "trials").iterdir() if path.is_dir()] == ["0000"]


def test_a_disk_that_cannot_be_written_ends_the_events_and_not_the_search(folder, capsys):
    (folder / "trials" / "0000").write_text("a file where a folder should be")
    writer = writer_of(folder)
    run = ObservedRun(writer)
    run.epoch(run.begin())
    assert writer.failed
    error = capsys.readouterr().err
    assert error.startswith("TensorBoard events stopped (")
    assert error.count("\n") == 1


def test_importing_it_brings_in_neither_torch_nor_tensorflow_nor_ray():
    code = "import sys, cluster.tensorboard; print([m for m in ('torch', 'tensorflow', 'ray') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.timeout(100)
def test_what_ends_the_command_ends_tensorboard(tmp_path):
    Ledger(tmp_path / "x").close()
    stand_in = "import time, os, sys; print(os.getpid(), flush=True); time.sleep(1000)"
    script = (
        "import sys; from pathlib import Path; from cluster import tensorboard; "
        f"tensorboard.tensorboard_command = lambda _: [sys.executable, '-c', {stand_in!r}]; "
        "sys.exit(tensorboard.show_tensorboard(Path(sys.argv[1]), 6006))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.terminate()
        assert process.wait(60) == 143
    assert not lives(child)
