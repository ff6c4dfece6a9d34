import csv
import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from analysis.card import model_card
from analysis.deploy import Model, Prediction, load_model, write_model, write_predictions_csv
from foundation import RequestError
from trainables.models import build_classifier

CLASSES = ["dark", "light"]
KNOBS = {
    "depth": 2,
    "filters": 8,
    "kernel": 3,
    "dense_layers": 1,
    "dense_units": 8,
    "dropout": 0.5,
    "activation": "relu",
    "batch_norm": True,
}
BRIGHTNESS = """
from torch import nn

class Brightness(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.line = nn.Linear(1, 2)
        nn.init.constant_(self.line.bias, 0.0)
        self.line.weight.data.copy_(self.line.weight.new_tensor([[-gain], [gain]]))

    def forward(self, images):
        return self.line(images.mean(dim=(1, 2, 3)).unsqueeze(1))

def build(image_shape, classes, *, gain):
    return Brightness(gain)
"""


def card(**fields: Any) -> dict[str, Any]:
    return {
        "architecture": "cnn",
        "image_shape": [3, 28, 28],
        "classes": CLASSES,
        "config": KNOBS,
        "mean": [120.0, 120.0, 120.0],
        "deviation": [60.0, 60.0, 60.0],
        "resize": "squash",
        "metrics": {"n_images": 50, "accuracy": {"mean": 0.9, "low": 0.85, "high": 0.95, "n": 3}},
        "trained_on": {"data": "pictures`.zip", "epochs": 12},
        "versions": {"torch": "2.15.0"},
    } | fields


def brightness_card(channels: int, **fields: Any) -> dict[str, Any]:
    shape, mean, deviation = [channels, 28, 28], [127.5] * channels, [50.0] * channels
    return card(
        architecture="brightness",
        image_shape=shape,
        config={"gain": 3.0},
        mean=mean,
        deviation=deviation,
        source=BRIGHTNESS,
        **fields,
    )


def classifier_of(card: dict[str, Any]) -> nn.Module:
    return build_classifier(
        card["architecture"],
        tuple(card["image_shape"]),
        len(card["classes"]),
        card["config"],
        mean=card["mean"],
        deviation=card["deviation"],
        source=card.get("source"),
    )


@pytest.fixture
def brightness(tmp_path: Path) -> Callable[[int], Model]:
    def written(channels: int) -> Model:
        described = brightness_card(channels)
        write_model(tmp_path / "model", classifier_of(described), described)
        return load_model(tmp_path / "model", trust_code=True)

    return written


def picture(path: Path, *, value: int, channels: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((20, 30, channels), value, np.uint8))
    return path


def test_a_loaded_model_gives_the_same_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = classifier_of(card())
    images = torch.rand(4, 3, 28, 28) * 255
    classifier.train()(images)
    # As a model comes out of training on a device that is fast at this layout.
    classifier.to(memory_format=torch.channels_last)
    write_model(tmp_path / "model", classifier, card())
    model = load_model(tmp_path / "model", trust_code=True)
    with torch.inference_mode():
        assert torch.equal(
            model.classifier(images), classifier.to(memory_format=torch.contiguous_format).eval()(images)
        )
    assert model.classes == ("dark", "light")
    assert not (tmp_path / "model" / "architecture.py").exists()
    modes = {file.stat().st_mode for file in (tmp_path / "model").iterdir()}
    assert len(modes) == 1  # whoever may read the description may read the weights


def test_the_folder_says_all_about_the_model(tmp_path: Path) -> None:
    described = brightness_card(3)
    write_model(tmp_path / "model", classifier_of(described), described)
    names = sorted(file.name for file in (tmp_path / "model").iterdir())
    assert names == ["README.md", "architecture.py", "model.json", "weights.safetensors"]
    stored = json.loads((tmp_path / "model" / "model.json").read_text("utf-8"))
    assert stored["format"] == 1
    assert stored["config"] == {"gain": 3.0}
    text = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "Accuracy 90.0 % (3 runs, 95 % interval 85.0 to 95.0 %) on 50 images it never saw." in text
    assert "| accuracy | 90.0 % | 85.0 to 95.0 % | 3 |" in text
    assert "`dark`, `light`" in text
    assert "- data: `pictures'.zip`" in text
    assert "convscout predict" in text


def test_a_model_that_was_never_tested_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "model", classifier_of(card()), card(metrics={}))
    assert "this model was never tested" in (tmp_path / "model" / "README.md").read_text("utf-8")


BY_CLASS = [
    {"class": "dark", "precision": 0.8, "recall": 0.5, "f1": 0.615, "support": 40, "predicted": 25},
    {"class": "li|ght", "precision": 0.6, "recall": 1.0, "f1": 0.75, "support": 10, "predicted": 25},
]


def test_the_card_has_data_and_figures_by_class_and_the_limits_they_show() -> None:
    trained_on = {"data": "pictures.zip", "images": 1300, "images_by_class": {"dark": 1200, "li|ght": 100}}
    described = card(trained_on=trained_on, classes=["dark", "li|ght"])
    text = model_card(described | {"metrics": described["metrics"] | {"by_class": BY_CLASS}})
    assert "| `dark` | 1,200 | 40 | 80.0 % | 50.0 % | 61.5 % |" in text
    assert "| `li\\|ght` | 100 | 10 | 60.0 % | 100.0 % | 75.0 % |" in text
    assert "- images: `1300`" in text
    assert "images_by_class" not in text
    assert "- It misses `dark`: it found 20 of 40 test images." in text
    assert text.count("It misses") == 1
    assert "- With fewer than 30 test images the figures are rough: `li|ght`." in text
    assert "- The intervals below say what other seeds would give, not what other test images would." in text
    assert "RGB, the whole image, whatever its shape, is scaled to 28 x 28 pixels" in text
    for command in ("predict THIS_FOLDER", "export THIS_FOLDER --format onnx", "export THIS_FOLDER --format torch"):
        assert f"convscout {command}" in text


def test_the_card_of_a_model_without_figures_by_class_has_no_table_of_them() -> None:
    text = model_card(card())
    assert "By class" not in text
    assert "It misses" not in text
    assert "- A probability is the network's softmax as it is: nobody calibrated it." in text
    assert "intervals" not in model_card(card(metrics={}))


def test_weights_that_are_not_finite_do_not_ship(tmp_path: Path) -> None:
    classifier = classifier_of(card())
    next(classifier.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        write_model(tmp_path / "model", classifier, card())
    assert not (tmp_path / "model").exists()


def test_prediction_of_files_and_folders(brightness: Callable[[int], Model], tmp_path: Path) -> None:
    model = brightness(3)
    picture(tmp_path / "new" / "deep" / "b.png", value=250)
    picture(tmp_path / "new" / "a.jpg", value=5)
    picture(tmp_path / "new" / ".hidden.png", value=5)
    (tmp_path / "new" / "notes.txt").write_text("no image")
    single = picture(tmp_path / "c.png", value=240, channels=1)
    found = model.predict([tmp_path / "new", str(single)], batch_size=2)
    assert [Path(each.path).name for each in found] == ["a.jpg", "b.png", "c.png"]
    assert [each.label for each in found] == ["dark", "light", "light"]
    for each in found:
        assert each.error is None
        assert each.probability == max(each.probabilities.values()) > 0.9
        assert sum(each.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_colour_becomes_grey_for_a_grey_model(brightness: Callable[[int], Model], tmp_path: Path) -> None:
    model = brightness(1)
    assert cv2.imwrite(str(tmp_path / "blue.png"), np.full((9, 9, 3), (255, 0, 0), np.uint8))
    picture(tmp_path / "white.png", value=255)
    assert [each.label for each in model.predict([tmp_path / "blue.png", tmp_path / "white.png"])] == ["dark", "light"]


def test_a_bad_image_is_an_entry_and_stops_nothing(brightness: Callable[[int], Model], tmp_path: Path) -> None:
    model = brightness(3)
    good = picture(tmp_path / "good.png", value=250)
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:40])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    found = model.predict([tmp_path / name for name in ("broken.png", "good.png", "empty.jpg", "none.png", "folder")])
    assert [each.label for each in found] == [None, "light", None, None, None]
    assert all(each.error for each in found if each.label is None)
    assert found[3].error == "cannot be read: No such file or directory"
    assert (found[4].error or "").startswith("no image file in this folder; images end in .")
    assert (found[0].probability, found[0].probabilities) == (None, {})


def test_what_is_no_file_in_a_folder_is_said_and_stops_nothing(
    brightness: Callable[[int], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = brightness(3)
    folder = tmp_path / "new"
    picture(folder / "good.png", value=250)
    picture(folder / "closed" / "inside.png", value=250)
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "away.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "round").symlink_to(folder)
    scan = os.scandir

    def scandir(where: str | Path) -> Any:
        if Path(where).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(where))
        return scan(where)

    monkeypatch.setattr(os, "scandir", scandir)
    assert {Path(each.path).name: each.error for each in model.predict([folder])} == {
        "away.png": "cannot be read: No such file or directory",
        "closed": "cannot be read: Permission denied",
        "good.png": None,
        "loop.png": "cannot be read: Too many levels of symbolic links",
        "pipe.png": "not a regular file",
    }


def test_nothing_to_predict(brightness: Callable[[int], Model]) -> None:
    assert brightness(3).predict([]) == []


def test_predictions_csv_is_no_formula(tmp_path: Path) -> None:
    predictions = [
        Prediction("bad.png", error="truncated PNG"),
        Prediction("=1+1.png", "@home", 0.75, {"@home": 0.75, "plain": 0.25}),
    ]
    write_predictions_csv(predictions, tmp_path / "predictions.csv")
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "label", "probability", "error", "probability/@home", "probability/plain"],
        ["bad.png", "", "", "truncated PNG", "", ""],
        ["'=1+1.png", "'@home", "0.750000", "", "0.750000", "0.250000"],
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", classifier_of(card()), card())
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        load_model(folder)
    return str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    assert "nowhere: no such folder; a model is a folder with model.json and" in refusal(tmp_path / "nowhere")


def test_both_files_missing_are_both_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text = refusal(tmp_path / "empty")
    assert "model.json is missing" in text
    assert "weights.safetensors is missing" in text


@pytest.mark.parametrize("content", ["{", "[]", "{}", "3"])
def test_a_description_that_is_none(folder: Path, content: str) -> None:
    (folder / "model.json").write_text(content)
    assert "model.json is not the description of a model" in refusal(folder)


def change(folder: Path, **fields: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields))


def test_a_later_format(folder: Path) -> None:
    change(folder, format=2)
    assert "model.json has format 2, this version reads format 1" in refusal(folder)


def test_fields_that_are_missing(folder: Path) -> None:
    (folder / "model.json").write_text('{"format": 1, "architecture": "cnn"}')
    assert "model.json lacks image_shape, classes, config" in refusal(folder)


def test_damaged_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    assert "weights.safetensors is damaged" in refusal(folder)


def test_weights_of_another_model(folder: Path) -> None:
    change(folder, classes=["a", "b", "c"])
    assert "weights.safetensors and model.json do not belong together" in refusal(folder)
    change(folder, config={"depth": 2})
    assert "missing are" in refusal(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    change(folder, architecture="cnm")
    assert "'cnm'" in refusal(folder)
    assert "cnn" in refusal(folder)


class Touch:
    """What pickle runs when it reads one of these: it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_planted_as_weights_does_not_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Touch(marker)))
    assert "weights.safetensors is damaged" in refusal(folder)
    assert not marker.exists()


def test_code_that_a_model_brings_along_runs_only_when_it_is_trusted(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (folder / "architecture.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    said = refusal(folder)
    assert "brings code of its own, architecture.py" in said
    assert "--trust-code" in said
    assert not marker.exists()
    with pytest.raises(RequestError):  # it is run now, and is no architecture
        load_model(folder, trust_code=True)
    assert marker.exists()
