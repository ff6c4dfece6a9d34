from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from analysis.board import write_board
from analysis.evaluate import Predictions

CLASSES = ("cat", "a`b")


def contender(name: str, trial: int, epochs: int) -> dict[str, Any]:
    finals = [{"trial": trial, "seed": 5, "epochs": epochs}, {"trial": trial + 1, "seed": 6, "epochs": epochs}]
    return {
        "name": name,
        "finals": finals,
        "first_test": {"n_images": 4, "accuracy": 0.75, "confusion": [[2, 1], [0, 1]]},
    }


def written(folder: Path) -> EventMultiplexer:
    """Write the images of an analysis of two contenders and one that failed; return what TensorBoard reads of them."""
    predictions = Predictions(
        labels=np.array([0, 0, 0, 1]),
        paths=("0.png", "1.png", "sub/2.png", "3.png"),
        probabilities={8: np.array([[0.9, 0.1], [0.8, 0.2], [0.125, 0.875], [0.3, 0.7]], np.float32)},
        worst=np.array([2]),
        worst_images=np.full((1, 8, 8, 1), 77, np.uint8),
    )
    analysis = {
        "experiment": {"classes": list(CLASSES)},
        "contenders": [contender("cnn baseline", 4, 3), contender("cnn trial 2", 8, 2), {"name": "vgg11 baseline"}],
        "chosen": {"trial": 8},
        "worst": predictions.worst_rows(8, CLASSES),
    }
    ledger: Any = SimpleNamespace(history=SimpleNamespace(last_seq=40, tests_opened=[{"time": 1.7e9}]))
    write_board(folder, ledger, analysis, predictions)
    return EventMultiplexer().AddRunsFromDirectory(str(folder / "trials")).Reload()


def test_each_contender_that_was_tested_has_its_matrix_at_the_epoch_it_was_trained_to(tmp_path: Path) -> None:
    read = written(tmp_path)
    assert sorted(read.Runs()) == ["0004/test", "0008/test"]
    for run, epochs, name in (("0004/test", 3, "cnn baseline (trial 4)"), ("0008/test", 2, "cnn trial 2 (trial 8)")):
        (event,) = read.Tensors(run, "confusion_matrix")
        assert (event.step, event.wall_time) == (epochs, 1.7e9)
        said = read.SummaryMetadata(run, "confusion_matrix").summary_description
        assert said.startswith(
            f"{name}: 75.0 % of 4 test images right, after {epochs} epochs. Rows are the true classes"
        )


def test_only_the_chosen_model_has_mistakes_each_with_its_words(tmp_path: Path) -> None:
    read = written(tmp_path)
    tag = "worst_mistakes/01: cat taken for a`b, 87.5 %"
    assert sorted(read.Runs()["0008/test"]["tensors"]) == ["confusion_matrix", tag]
    assert read.Runs()["0004/test"]["tensors"] == ["confusion_matrix"]
    assert read.SummaryMetadata("0008/test", tag).summary_description == (
        "`sub/2.png` is of class `cat`; the model that ships (cnn trial 2) was 87.5 % sure of `a'b`."
    )
    (event,) = read.Tensors("0008/test", tag)
    assert event.step == 2
    assert list(event.tensor_proto.string_val[:2]) == [b"192", b"192"]
