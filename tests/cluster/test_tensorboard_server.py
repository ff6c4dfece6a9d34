"""What a running TensorBoard answers over HTTP about an experiment: what its pages are made of."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from observed_run import CONFIG, ObservedRun

from cluster.tensorboard import TensorBoardWriter, tensorboard_command
from cluster.tensorboard_images import BoardImage, write_images

pytestmark = pytest.mark.timeout(90)

ENDS = ("completed", "stopped", "diverged", "out_of_memory", "infeasible", "data_error", "lost", None)
STATUSES = {"completed": "STATUS_SUCCESS", "stopped": "STATUS_SUCCESS", None: "STATUS_UNKNOWN"}
PNG = b"\x89PNG is not looked into"
MISTAKE = "worst_mistakes/01: Füchse/Wölfe taken for a & b?, 98.1 %"


def fetch(url: str, body: dict[str, Any] | None = None) -> bytes:
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, sent, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an experiment with a trial of every end, and images of two of them."""
    path = tmp_path_factory.mktemp("served")
    declared = {"learning_rate": (1e-4, 1.0), "optimizer": ("sgd", "adam")}
    run = ObservedRun(TensorBoardWriter(path, declared, "val_accuracy"))
    for number, status in enumerate(ENDS):
        trial = run.begin(learning_rate=0.001 * (number + 1))
        if status != "infeasible":
            run.epoch(trial, val_accuracy=0.5 + number / 100)
            run.epoch(trial, val_accuracy=0.375)
        if status:
            run.end(trial, status, error="it failed")
    matrix = BoardImage("confusion_matrix", PNG + b"0", 320, 200, 17, "Rows are the true classes")
    mistake = BoardImage(MISTAKE, PNG + b"1", 192, 192, 17, "`a/b.png` is of class `Füchse/Wölfe`")
    write_images(path, {0: [matrix, mistake], 6: [matrix]}, seq=99, time=1_700_000_500.0)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """Return the address of a TensorBoard on a free port, once it has loaded every run."""
    command = [*tensorboard_command(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "http://" in line)
            address = next(word for word in line.split() if word.startswith("http://"))
            runs = {path.parent for path in folder.glob("trials/**/events*")}
            while len(json.loads(fetch(f"{address}data/runs"))) < len(runs):
                pass  # TensorBoard answers before it has loaded everything
            yield address
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def image_of(server: str, run: str, tag: str) -> SimpleNamespace:
    query = urllib.parse.urlencode({"run": run, "tag": tag, "sample": 0})
    (found,) = json.loads(fetch(f"{server}data/plugin/images/images?{query}"))
    content = fetch(f"{server}data/plugin/images/individualImage?{found['query']}")
    return SimpleNamespace(step=found["step"], time=found["wall_time"], content=content)


def test_train_and_val_share_their_tags(server: str) -> None:
    runs = json.loads(fetch(f"{server}data/plugin/scalars/tags"))
    assert sorted(runs["0001/train"]) == sorted(runs["0001/val"]) == ["accuracy", "loss"]
    assert sorted(runs["0000"]) == [
        "best/val_accuracy",
        "best/val_loss",
        "epochs_run",
        "images_per_second",
        "learning_rate",
    ]


def test_hparams_has_every_trial_with_its_best_metrics_whatever_its_end(server: str) -> None:
    experiment = json.loads(fetch(f"{server}data/plugin/hparams/experiment", {"experimentName": ""}))
    columns = {info["name"] for info in experiment["hparamInfos"]}
    assert columns == {"architecture", "role", *(name for name, value in CONFIG.items() if value is not None)}
    metrics = [info["name"] for info in experiment["metricInfos"]]
    assert [name["tag"] for name in metrics] == ["best/val_loss", "best/val_accuracy", "epochs_run"]
    asked = {
        "experimentName": "",
        "startIndex": 0,
        "sliceSize": 100,
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": name} for name in metrics],
    }
    groups = json.loads(fetch(f"{server}data/plugin/hparams/session_groups", asked))["sessionGroups"]
    sessions = {group["sessions"][0]["name"]: group for group in groups}
    assert sorted(sessions) == [f"{number:04d}" for number in range(len(ENDS))]
    for number, status in enumerate(ENDS):
        group = sessions[f"{number:04d}"]
        assert group["hparams"].keys() == columns
        assert group["hparams"]["learning_rate"] == 0.001 * (number + 1)
        assert group["sessions"][0]["status"] == STATUSES.get(status, "STATUS_FAILURE")
        found = {value["name"]["tag"]: value["value"] for value in group["sessions"][0].get("metricValues", [])}
        best = {"best/val_loss": 1.5 - number / 100, "best/val_accuracy": 0.5 + number / 100, "epochs_run": 2}
        assert found == pytest.approx({} if status == "infeasible" else best)


def test_images_are_listed_with_what_they_show(server: str) -> None:
    tags = json.loads(fetch(f"{server}data/plugin/images/tags"))
    assert {run: sorted(of_run) for run, of_run in tags.items() if of_run} == {
        "0000/test": ["confusion_matrix", MISTAKE],
        "0006/test": ["confusion_matrix"],
    }
    mistake = tags["0000/test"][MISTAKE]
    assert mistake["samples"] == 1
    assert mistake["displayName"] == MISTAKE
    assert "<code>a/b.png</code> is of class <code>Füchse/Wölfe</code>" in mistake["description"]


def test_every_image_comes_as_it_was_written(server: str) -> None:
    mistake = image_of(server, "0000/test", MISTAKE)
    assert (mistake.step, mistake.time, mistake.content) == (17, 1_700_000_500.0, PNG + b"1")
    assert image_of(server, "0006/test", "confusion_matrix").content == PNG + b"0"
