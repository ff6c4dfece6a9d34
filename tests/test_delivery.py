"""`predict` and `export` on the command line: tables, files, exit codes, and that Ray is not needed."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import convscout
import terminal
from analysis import export as exporting
from analysis.deploy import write_model
from trainables.models import build_classifier

HOUSE = Path(__file__).parents[1]
BRIGHTNESS = """
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self, broken):
        super().__init__()
        self.line = nn.Linear(1, 2)
        nn.init.constant_(self.line.bias, 0.0)
        self.line.weight.data.copy_(self.line.weight.new_tensor([[-3.0], [3.0]]))
        self.broken = broken

    def forward(self, images):
        logits = self.line(images.mean(dim=(1, 2, 3)).unsqueeze(1))
        return -logits if self.broken and torch.compiler.is_exporting() else logits

def build(image_shape, classes, *, broken):
    return Brightness(broken)
"""
CARD: dict[str, Any] = {
    "image_shape": [3, 28, 28],
    "classes": ["dark", "light"],
    "mean": [127.5] * 3,
    "deviation": [50.0] * 3,
    "resize": "squash",
    "metrics": {},
    "trained_on": {},
    "versions": {},
}


def brightness(folder: Path, *, broken: bool = False) -> Path:
    own: dict[str, Any] = {"architecture": "brightness", "config": {"broken": broken}, "source": BRIGHTNESS}
    classifier = build_classifier(
        "brightness", (3, 28, 28), 2, own["config"], mean=CARD["mean"], deviation=CARD["deviation"], source=BRIGHTNESS
    )
    write_model(folder, classifier, CARD | own)
    return folder


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return brightness(tmp_path / "model")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        assert cv2.imwrite(str(tmp_path / f"pictures/{number}.png"), np.full((9, 9, 3), 100 * number, np.uint8))
    return tmp_path / "pictures"


def run(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        convscout.main([str(argument) for argument in arguments])
    written = capfd.readouterr()
    return int(ended.value.code or 0), written.out, written.err


def test_predict_prints_a_table_and_writes_both_files(
    capfd: pytest.CaptureFixture[str], model: Path, pictures: Path, tmp_path: Path
) -> None:
    files = ("--csv", tmp_path / "out.csv", "--html", tmp_path / "out.html")
    code, out, err = run(capfd, "predict", model, pictures, "--trust-code", *files)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"In {pictures}:"  # once, since long paths fold badly in a table
    assert [line.split() for line in out.splitlines() if ".png" in line] == [
        ["0.png", "dark", "1.000"],
        ["1.png", "dark", "0.964"],
        ["2.png", "light", "1.000"],
    ]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4
    assert "3 images classified" in (tmp_path / "out.html").read_text()


def test_a_file_that_cannot_be_read_is_said_and_costs_only_itself(
    capfd: pytest.CaptureFixture[str], model: Path, pictures: Path
) -> None:
    (pictures / "empty.jpg").touch()
    code, out, err = run(capfd, "predict", model, pictures, "--trust-code")
    assert code == 0
    assert err == f"1 file was not read:\n  {pictures / 'empty.jpg'}: empty file (0 bytes)\n"
    assert out.count(".png") == 3
    code, out, err = run(capfd, "predict", model, pictures, "--trust-code", "--json")
    assert [row["error"] for row in json.loads(out)] == [None, None, None, "empty file (0 bytes)"]
    assert "empty.jpg" in err


def test_nothing_that_could_be_read_exits_with_1(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    code, out, err = run(capfd, "predict", model, tmp_path / "no.png", "--trust-code", "--html", tmp_path / "out.html")
    assert (code, out) == (1, "")
    assert "no.png: cannot be read: No such file or directory" in err
    assert "Not read: 1" in (tmp_path / "out.html").read_text()


def test_a_long_list_is_cut_and_counted(
    capfd: pytest.CaptureFixture[str], model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PREDICTIONS_SHOWN", 1)
    monkeypatch.setattr(terminal, "REFUSED_SHOWN", 1)
    for number in range(3):
        (pictures / f"empty{number}.jpg").touch()
    code, out, err = run(capfd, "predict", model, pictures, "--trust-code")
    assert code == 0
    assert out.count(".png") == 1
    assert out.endswith("... and 2 more; --csv FILE, --html FILE or --json lists all\n")
    assert err.splitlines()[0] == "3 files were not read:"
    assert err.splitlines()[-1] == "  ... and 2 more; --csv FILE or --json lists all"


def test_predict_needs_no_ray(model: Path, pictures: Path) -> None:
    script = (
        "import sys; sys.modules['ray'] = None; import convscout\n"  # an import of it fails from here on
        "convscout.main(sys.argv[1:])"
    )
    arguments = ["predict", str(model), str(pictures), "--trust-code", "--json", "--html", str(model.parent / "p.html")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=HOUSE, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in json.loads(done.stdout)] == ["dark", "dark", "light"]


@pytest.fixture
def _timed_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TIMED_SECONDS", 0.0)


@pytest.mark.usefixtures("_timed_quickly")
def test_export_prints_the_proof_and_the_speeds(capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    code, out, err = run(capfd, "export", model, "--format", "torch", "--trust-code")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{model / 'model.pt2'} (")
    assert "Input: images: uint8 (batch, 28, 28, 3), RGB, 0 to 255, not normalised" in lines
    proof = next(line for line in lines if line.startswith("Proven on 64 images: the logits differ by at most 0 ("))
    assert proof.endswith(", and the likeliest class is the same on all; 2 of 2 classes came first.")
    assert [line.split()[0] for line in lines if line.strip()[-1:].isdigit()] == ["original", "torch"]
    output = tmp_path / "elsewhere.onnx"
    code, out, _ = run(capfd, "export", model, "--output", output, "--trust-code", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["file"], found["format"], found["n_bytes"]) == (str(output), "onnx", output.stat().st_size)
    assert found["proof"]["same_class"] == found["proof"]["n_images"] == 64
    assert json.loads(found["about"]["classes"]) == ["dark", "light"]
    assert min(found["original_images_per_second"], found["exported_images_per_second"]) > 0


def test_a_file_that_is_not_the_model_exits_with_1_and_is_removed(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = brightness(tmp_path / "model", broken=True)
    before = sorted(model.iterdir())
    code, out, err = run(capfd, "export", model, "--format", "torch", "--trust-code")
    assert (code, out) == (1, "")
    assert err.startswith("error: the torch file is not equal to the model, and was removed: on 64 images its logits")
    assert sorted(model.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "MODEL", "--format", "onxx"), "--format 'onxx' is not known: did you mean 'onnx'?"),
        (("export", "MODEL", "--output", "no/x.onnx"), "--output no/x.onnx: it is in a folder that does not exist"),
        (("export", "nothing"), "experiment 'nothing' is not known"),
        (("export", "MODEL"), "say --trust-code"),
        (("predict", "MODEL", "x.png", "--html", "no/x.html"), "--html no/x.html: it is in a folder that does not"),
        (("predict", "MODEL", "x.png"), "say --trust-code"),
    ],
)
def test_a_wrong_request(
    capfd: pytest.CaptureFixture[str], model: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = run(capfd, *(str(model) if each == "MODEL" else each for each in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("_timed_quickly")
def test_the_commands_of_the_readme_run_as_they_stand(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an experiment called photos that was searched and analysed before, and a folder of new images."""
    monkeypatch.chdir(tmp_path)
    Path("runs/photos").mkdir(parents=True)
    torch.manual_seed(0)
    config = {
        "depth": 1, "filters": 8, "kernel": 3, "dense_layers": 1, "dense_units": 8, "dropout": 0.0,
        "activation": "relu", "batch_norm": False,
    }  # fmt: skip
    classifier = build_classifier("cnn", (3, 28, 28), 2, config, mean=[127.5] * 3, deviation=[50.0] * 3)
    write_model(Path("runs/photos/model"), classifier, CARD | {"architecture": "cnn", "config": config})
    Path("runs/photos/ledger.jsonl").touch()
    pictures.rename("new-images")
    readme = (HOUSE / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in readme if line.startswith(("convscout predict", "convscout export"))]
    assert len(commands) == 4
    for command in commands:
        code, _, err = run(capfd, *shlex.split(command, comments=True)[1:])
        assert (code, err) == (0, ""), command
    for file in ("predictions.csv", "predictions.html", "runs/photos/model/model.onnx", "runs/photos/model/model.pt2"):
        assert Path(file).stat().st_size > 0
