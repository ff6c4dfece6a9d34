from pathlib import Path

import pytest
import torch

import spaces
from search.preflight import preflight
from trainables.models import build_classifier
from trainables.recipe import split

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_an_architecture_of_ones_own_is_one_file() -> None:
    space = spaces.load(str(EXAMPLES / "tiny_net.py"))
    source = (EXAMPLES / "tiny_net.py").read_text()
    assert space.architecture == "tiny_net"
    assert space.baseline["learning_rate"] == 3e-3
    assert preflight("tiny_net", space.baseline, (1, 28, 28), 4, source).impossible is None
    _, knobs = split(space.baseline)
    model = build_classifier("tiny_net", (1, 28, 28), 4, knobs, mean=(0.0,), deviation=(1.0,), source=source)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_space_file_fits_the_architectures(file: Path) -> None:
    narrowed = spaces.read_space_file(file, (spaces.load("cnn"), spaces.load("alexnet")))
    assert [space.architecture for space in narrowed] == ["cnn", "alexnet"]
