import json
import runpy
import zipfile
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import spaces
from foundation import RequestError
from search.preflight import preflight
from search.request import load_spaces
from search.spec import SearchSpec, make_spec
from spaces import Space
from spaces.domains import Choice, bare
from trainables.models import build_classifier
from trainables.recipe import split

HOUSE = Path(__file__).parents[1]
EXAMPLES = HOUSE / "examples"
DATA = HOUSE.parent / "shared" / "data"
CONFIGS = sorted(str(path.relative_to(HOUSE)) for path in EXAMPLES.glob("*/*.yaml") if "space" not in path.name)
WORKED = {
    "alexnet-few-photos": ("photos-small.zip",),
    "characters": ("characters36.zip",),
    "cifar10": ("cifar10.zip",),
    "transfer": ("cifar10.zip", "photos-small.zip"),
    "twenty-classes": ("photos.zip",),
}


@pytest.fixture(autouse=True)
def _in_the_projects_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)  # the paths of space files are from there, as the commands are typed


@pytest.fixture(scope="module")
def runner() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "run.py")))


def asked(config: str) -> tuple[SearchSpec, dict[str, Space]]:
    """Return the request and the spaces of a configuration, as `search --config` reads it."""
    spec = make_spec({"data": "digits"}, config)
    return spec, load_spaces(spec)[0]


def varied(space: Space) -> set[str]:
    """Return the knobs in which configurations of the space differ."""
    rng = Random(0)
    drawn = [space.draw(rng) for _ in range(100)]
    return {name for name in space.knobs if len({config[name] for config in drawn if name in config}) > 1}


def options(space: Space, knob: str) -> set[Any]:
    domain = bare(space.knobs[knob].domain)
    assert isinstance(domain, Choice)
    return set(domain.options)


def test_an_architecture_of_ones_own_is_one_file() -> None:
    space = spaces.load(str(EXAMPLES / "tiny_net.py"))
    source = (EXAMPLES / "tiny_net.py").read_text()
    assert space.architecture == "tiny_net"
    assert space.baseline["learning_rate"] == 3e-3
    assert preflight("tiny_net", space.baseline, (1, 28, 28), 4, source).impossible is None
    _, knobs = split(space.baseline)
    model = build_classifier("tiny_net", (1, 28, 28), 4, knobs, mean=(0.0,), deviation=(1.0,), source=source)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


def test_every_example_has_both_forms_and_a_readme(runner: SimpleNamespace) -> None:
    assert runner.names() == sorted([*WORKED, "digits"])
    for name in WORKED:
        assert (EXAMPLES / name / "full.yaml").exists()
        assert f"make example NAME={name} DATA=" in (EXAMPLES / name / "README.md").read_text()
    written = [asked(config)[0].name for config in CONFIGS]
    assert len(set(written)) == len(written), "two experiments of one name cannot lie in one folder"


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_is_a_request_that_can_be_trained(config: str) -> None:
    spec, loaded = asked(config)
    assert spec.space is None or Path(spec.space) == HOUSE / config.replace(".yaml", "-space.yaml")
    assert tuple(loaded) == spec.arch
    for name, space in loaded.items():
        size = spec.image_size or 32
        baseline = space.baseline | ({"weights": "none"} if "weights" in space.knobs else {})
        assert preflight(name, baseline, (3, size, size), 10, None).impossible is None


@pytest.mark.parametrize("form", ["quick", "full"])
def test_alexnet_varies_filters_and_kernels_of_three_convolutions_units_and_the_learning_rate(form: str) -> None:
    spec, loaded = asked(f"examples/alexnet-few-photos/{form}.yaml")
    of_convolutions = {f"conv{number}_{what}" for number in (1, 2, 3) for what in ("filters", "kernel")}
    assert spec.method == "random"
    assert varied(loaded["alexnet"]) == of_convolutions | {"dense_units", "learning_rate"}


@pytest.mark.parametrize("form", ["quick", "full"])
def test_characters_vary_what_the_issue_of_tuning_is_about_and_are_never_mirrored(form: str) -> None:
    spec, loaded = asked(f"examples/characters/{form}.yaml")
    assert spec.patience is not None
    assert spec.method == "tpe_asha"
    assert set(loaded) == {"alexnet", "vgg11"}
    for space in loaded.values():
        wanted = {"dropout", "optimizer", "activation", "accumulation_steps", "schedule"}
        assert wanted <= varied(space)
        assert options(space, "flip") == {0}


@pytest.mark.parametrize("form", ["quick", "full"])
def test_twenty_classes_vary_depth_batch_size_augmentation_and_adamw(form: str) -> None:
    space = asked(f"examples/twenty-classes/{form}.yaml")[1]["cnn"]
    assert {"depth", "batch_size", "flip", "shift", "rotation", "zoom", "weight_decay"} <= varied(space)
    assert "adamw" in options(space, "optimizer")


def test_cifar10_compares_four_optimizers_and_nothing_else_but_learning_rates() -> None:
    spec, loaded = asked("examples/cifar10/quick.yaml")
    assert varied(loaded["cnn"]) == {"learning_rate", "optimizer"}
    assert (spec.method, spec.trials) == ("grid", 1 + 4 * 3)  # the baseline and every point
    assert options(asked("examples/cifar10/full.yaml")[1]["vgg11"], "optimizer") == {"sgd", "adam", "adamw", "rmsprop"}


@pytest.mark.parametrize("form", ["quick", "full"])
def test_transfer_starts_from_a_file_where_there_is_one_and_says_where_not(form: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    config = f"examples/transfer/{form}.yaml"
    loaded = load_spaces(make_spec({"data": "digits", "weights": str(weights)}, config))[0]
    assert options(loaded["mobilenet_v2"], "weights") == {str(weights)}
    assert options(loaded["resnet50"], "weights") == options(loaded["efficientnet_b0"], "weights") == {"none"}
    assert {0, 20} <= options(loaded["mobilenet_v2"], "trainable_layers")
    assert options(loaded["mobilenet_v2"], "batch_norm") == {True, False}
    assert "dropout" in varied(loaded["mobilenet_v2"])
    before = asked(f"examples/transfer/pretrain-{form}.yaml")[1]["mobilenet_v2"]
    assert options(before, "weights") == {"none"}
    assert varied(before) == set()


def test_a_part_of_the_images_is_spread_over_each_folder(runner: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(10):
        for folder in ("train/cat", "test/dog"):
            path = tmp_path / "all" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(folder.encode() + bytes([number]))
    (tmp_path / "all" / "README.txt").write_text("no image")
    runner.few(str(tmp_path / "all"), 4, tmp_path / "zips" / "few.zip")
    with zipfile.ZipFile(tmp_path / "zips" / "few.zip") as archive:
        names = [f"{folder}/{number}.png" for folder in ("test/dog", "train/cat") for number in (0, 2, 5, 7)]
        assert archive.namelist() == names
        assert archive.read("train/cat/7.png") == b"train/cat\x07"


def test_a_csv_has_no_folders_to_take_a_part_of(runner: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("path,label\n")
    with pytest.raises(RequestError, match="takes a part of a folder, zip or tar; --full takes a CSV too"):
        runner.few(str(tmp_path / "all.csv"), 4, tmp_path / "few.zip")


def test_new_images_are_of_the_test_split(runner: SimpleNamespace, striped: Path, tmp_path: Path) -> None:
    runner.write_aside(str(striped), {"name": "other options are left alone", "image_size": 28}, tmp_path)
    cache = runner.prepare(str(striped), image_size=28)
    held_out = {path.replace("/", "-") for path in json.loads((cache.folder / "test_paths.json").read_text())}
    written = {path.name for path in tmp_path.iterdir()}
    assert len(written) == runner.NEW_IMAGES
    assert written < held_out


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, runner: SimpleNamespace) -> list[list[str]]:
    """Return the commands that the runner would have run, as they are typed."""
    typed: list[list[str]] = []

    def run(command: list[str], cwd: Path) -> SimpleNamespace:
        assert cwd == HOUSE
        typed.append(command[2:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setitem(runner.convscout.__globals__, "subprocess", SimpleNamespace(run=run))
    return typed


def test_transfer_goes_from_the_model_it_pretrained(
    runner: SimpleNamespace, striped: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    runner.main(["transfer", "--data", str(striped), str(striped), "--storage", str(tmp_path)])
    assert [words[0] for words in commands] == ["search", "analyze", "predict"] * 2
    assert "--weights" not in commands[0]
    trained = tmp_path / "transfer-pretrain-quick" / "model" / "weights.safetensors"
    assert commands[3][-2:] == ["--weights", str(trained)]
    assert commands[4] == ["analyze", str(tmp_path / "transfer-quick"), "--finalists", "1", "--seeds", "2"]


def test_the_full_form_takes_the_data_as_it_is(
    runner: SimpleNamespace, striped: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    runner.main(["characters", "--full", "--data", str(striped), "--storage", str(tmp_path)])
    assert commands[0][:4] == ["search", str(striped), "--config", "examples/characters/full.yaml"]
    assert commands[1][2:8] == ["--finalists", "3", "--seeds", "5", "--ablate", "optimizer"]
    assert not (tmp_path / "few-images").exists()


def test_a_command_that_fails_ends_the_example_with_its_code(
    runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=130))
    monkeypatch.setitem(runner.convscout.__globals__, "subprocess", failing)
    with pytest.raises(SystemExit) as ended:
        runner.convscout("search", "digits")
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["transfer", "--data", "one.zip"],
            "transfer trains 2 times: --data found ['one.zip'], one for each is needed",
        ),
        (["digits", "--full", "--data", "digits"], "digits has no full form: there is no"),
        (["characters", "--data", "/nowhere.zip"], "/nowhere.zip"),
    ],
)
def test_what_cannot_run_is_said(
    runner: SimpleNamespace, words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        runner.main([*words, "--storage", str(tmp_path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_every_plan_is_of_a_search_and_ablates_what_it_varies(runner: SimpleNamespace) -> None:
    for part, plan in runner.PLANS.items():
        spec, loaded = asked(f"examples/{part}.yaml")
        assert plan.finalists <= spec.trials
        for space in loaded.values():
            assert set(plan.ablate) <= varied(space)


@pytest.mark.parametrize("name", WORKED)
def test_the_real_data_has_the_classes_that_the_readme_speaks_of(
    name: str, runner: SimpleNamespace, tmp_path: Path
) -> None:
    for file in WORKED[name]:
        if not (DATA / file).exists():
            pytest.skip(f"{DATA / file} is not there")
        runner.few(str(DATA / file), 2, tmp_path / file)
        with zipfile.ZipFile(tmp_path / file) as archive:
            folders = Counter(path.rsplit("/", 1)[0] for path in archive.namelist())
        assert set(folders.values()) == {2}
        classes = {folder.split("/")[-1] for folder in folders}
        assert len(classes) == {"characters36.zip": 36, "photos.zip": 20}.get(file, 10)
