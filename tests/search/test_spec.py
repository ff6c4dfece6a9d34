from pathlib import Path

import pytest

from foundation import RequestError
from search.request import load_spaces
from search.spec import default_name, differences, make_spec, seconds_of


def problems(**options: object) -> tuple[str, ...]:
    with pytest.raises(RequestError) as caught:
        make_spec({"data": "digits", **options})
    return caught.value.problems


def test_defaults_are_those_of_the_design() -> None:
    spec = make_spec({"data": "digits"})
    assert (spec.name, spec.method, spec.metric, spec.storage) == ("digits", "tpe_asha", "val_accuracy", "runs")
    assert (spec.val_fraction, spec.test_fraction, spec.precision) == (0.15, 0.2, "auto")


def test_all_mistakes_come_at_once_each_with_its_remedy() -> None:
    found = problems(method="tpa", metric="acc", trials=0, time_budget="5x", precision="fp16")
    assert found == (
        "--method: method 'tpa' is not known: did you mean 'tpe'? allowed are asha, grid, random, tpe, tpe_asha",
        "--trials 0: it must be greater than or equal to 1",
        "--time-budget: '5x' is no duration: write it like 90s, 10m or 1h30m",
        "--metric 'acc' is not known: allowed are val_accuracy, val_balanced_accuracy, val_loss, val_macro_f1",
        "--precision 'fp16' is not known: did you mean 'bf16'? allowed are auto, bf16, fp32",
    )


def test_fractions_have_bounds() -> None:
    assert problems(val_fraction=0.6, test_fraction=0) == (
        "--val-fraction 0.6: it must be less than or equal to 0.5",
        "--test-fraction 0: it must be greater than or equal to 0.01",
    )


def test_reserved_words_never_mean_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "none", "mine"):
        (tmp_path / name).mkdir()
    spec = make_spec({"data": "digits", "weights": "none"})
    assert (spec.data, spec.weights) == ("digits", "none")
    assert make_spec({"data": "mine"}).data == str(tmp_path / "mine")


def test_without_data_it_says_so() -> None:
    with pytest.raises(RequestError, match="data is missing"):
        make_spec({})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("45", 45), (7.5, 7.5), (None, None)]
)
def test_durations(text: str | float | None, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "5d", "m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds_of(text)


def test_a_config_file_gives_options_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("data: digits\narch: cnn\nepochs: 7\ntrials: 3\ntime-budget: 2m\n")
    spec = make_spec({"trials": 5, "epochs": None, "arch": ()}, str(file))
    assert (spec.data, spec.arch, spec.epochs, spec.trials, spec.time_budget) == ("digits", ("cnn",), 7, 5, 120)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: digits\nepoch: 3\n", r"search.yaml: key 'epoch' is not known: did you mean 'epochs'\?"),
        ("data: digits\nspace: {learning_rate: 1}\n", r"--space {'learning_rate': 1}: it must be a valid string"),
        ("data: digits\ntime_budget: [1]\n", r"--time-budget: \[1\] is no duration"),
        ("data: digits\ntime_budget: true\n", "--time-budget: True is no duration"),
        ("data: digits\ntrials: true\n", "--trials True: it must be a valid integer"),
        ("data: digits\nval-fraction: .nan\n", "--val-fraction nan: it must be a finite number"),
        ("data: digits\ntime-budget: 1m\ntime_budget: 2m\n", "the key time_budget is there twice"),
        ("- 1\n", "holds a list: lines like `name: value` are needed"),
        ("a: [", "--config .*search.yaml cannot be read"),
    ],
)
def test_a_config_file_with_mistakes(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(text)
    with pytest.raises(RequestError, match=message):
        make_spec({}, str(file))


def test_a_missing_config_file() -> None:
    with pytest.raises(RequestError, match=r"--config nowhere\.yaml cannot be read"):
        make_spec({}, "nowhere.yaml")


@pytest.mark.parametrize(
    ("data", "name"),
    [("digits", "digits"), ("/a/my photos.zip", "my-photos"), ("x/train.tar.gz", "train"), ("../..", "experiment")],
)
def test_names_come_from_the_data(data: str, name: str) -> None:
    assert default_name(data) == name


def test_differences_name_what_is_not_operational() -> None:
    old = make_spec({"data": "digits", "epochs": 5}).model_dump(mode="json")
    new = make_spec({"data": "digits", "epochs": 6, "trials": 50, "time_budget": "1h", "storage": "elsewhere"})
    assert differences(old, new) == ["epochs: the experiment has 5, now asked 6"]


@pytest.mark.parametrize(
    ("text", "gpus"), [("0.5", 0.5), (2, 2.0), ("0", 0.0), ("auto", "auto"), (None, None), (0.25, 0.25)]
)
def test_gpus_per_trial(text: object, gpus: object) -> None:
    assert make_spec({"data": "digits", "gpus_per_trial": text}).gpus_per_trial == gpus


@pytest.mark.parametrize("text", ["half", "", "-1", "nan", "inf", True, "1e-5", [1]])
def test_what_is_no_number_of_gpus_is_refused(text: object) -> None:
    allowed = "0, a share such as 0.5 (at least 0.01), a whole number, or auto is needed"
    assert problems(gpus_per_trial=text) == (f"--gpus-per-trial: {text!r} is no number of GPUs: {allowed}",)


def test_fewer_images_up_to_the_first_rung_need_a_rung() -> None:
    assert make_spec({"data": "digits", "grace_images": 0.25}).grace_images == 0.25
    assert problems(method="random", grace_images=0.25) == (
        "--grace-images: method random has no rungs, choose asha or tpe_asha",
    )
    assert problems(epochs=1, grace_images=0.25) == (
        "--grace-images: a trial of 1 epoch has no rung, ask for 2 --epochs or more",
    )
    assert problems(grace_images=0.1) == ("--grace-images 0.1: it must be greater than or equal to 0.2",)
    assert problems(grace_images=1.0) == ("--grace-images 1.0: it must be less than 1",)


def test_published_weights_are_asked_of_built_in_architectures_only(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "from spaces import Choice, Knob\n"
        "SPACE = {'weights': Knob(Choice(('light', 'heavy')), 'ink', 'there are two')}\n"
        "BASELINE = {'weights': 'light'}\n"
        "def build(image_shape, classes, *, weights): ...\n"
    )
    loaded, _ = load_spaces(make_spec({"data": "digits", "arch": [str(own), "mobilenet_v2"], "weights": "none"}))
    options = {name: space.knobs["weights"].domain.options for name, space in loaded.items()}
    assert options == {"mine": ("light", "heavy"), "mobilenet_v2": ("none",)}
