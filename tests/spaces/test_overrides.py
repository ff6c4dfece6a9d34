import random

import pytest

import spaces
from foundation import RequestError
from spaces import Choice, Integer, LogUniform, Uniform, Unless, When, narrowed, read_space_file

CNN, ALEXNET, MOBILENET = (spaces.load(name) for name in ("cnn", "alexnet", "mobilenet_v2"))


def read(tmp_path, text, *chosen):
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return read_space_file(path, chosen or (CNN, ALEXNET))


def problems(tmp_path, text, *chosen):
    with pytest.raises(RequestError) as error:
        read(tmp_path, text, *chosen)
    return list(error.value.problems)


def test_scalars_lists_and_ranges(tmp_path):
    text = """
learning_rate: {low: 1e-4, high: "1e-2"}
weight_decay: {low: 0, high: 1e-4, log: false}
optimizer: [sgd, adam]
batch_size: "64"
shift: 1e-1
dense_units: {low: 64, high: 512, step: 64}
cnn:
  depth: {low: 2, high: 9}
  filters: {low: 8, high: 64, log: true}
  batch_norm: yes
alexnet:
  batch_size: {low: 8, high: 8}
"""
    cnn, alexnet = read(tmp_path, text)
    domain = {name: knob.domain for name, knob in cnn.knobs.items()}
    assert domain["learning_rate"] == LogUniform(1e-4, 1e-2)
    assert domain["weight_decay"] == Uniform(0, 1e-4)
    assert domain["optimizer"] == Choice(("sgd", "adam"))
    assert domain["batch_size"] == Choice((64,))
    assert domain["shift"] == Choice((0.1,))
    assert domain["dense_units"] == Integer(64, 512, step=64)
    assert domain["depth"] == Integer(2, 9)
    assert domain["filters"] == Integer(8, 64, log=True)
    assert domain["batch_norm"] == Choice((True,))
    assert domain["kernel"] == CNN.knobs["kernel"].domain
    assert alexnet.knobs["batch_size"].domain == Choice((8,))
    assert alexnet.knobs["batch_norm"] == ALEXNET.knobs["batch_norm"]


def test_the_baseline_moves_to_the_nearest_value(tmp_path):
    cnn, alexnet = read(tmp_path, "learning_rate: {low: 1e-5, high: 5e-4}\ndropout: 0.2\nbatch_size: [8, 128]\n")
    assert cnn.baseline == CNN.baseline | {"learning_rate": 5e-4, "dropout": 0.2, "batch_size": 8}
    assert alexnet.baseline["learning_rate"] == ALEXNET.baseline["learning_rate"]


def test_an_architectures_own_value_starts_from_the_untouched_baseline(tmp_path):
    text = "learning_rate: {low: 1e-5, high: 1e-4}\ncnn: {learning_rate: {low: 1e-4, high: 1e-2}}\n"
    assert read(tmp_path, text)[0].baseline["learning_rate"] == CNN.baseline["learning_rate"]


def test_a_knob_that_becomes_active_joins_the_baseline():
    sgd = narrowed(CNN, {"optimizer": "sgd"}, "--space")
    assert sgd.baseline["momentum"] == 0.9
    assert isinstance(sgd.knobs["momentum"].domain, When)
    frozen = narrowed(MOBILENET, {"trainable_layers": 0}, "--space")
    assert "frozen_epochs" not in frozen.baseline
    thawed = narrowed(frozen, {"trainable_layers": [5, "all"]}, "--space")
    assert thawed.baseline["frozen_epochs"] == 2  # the middle of its range: nothing else is known


def test_conditional_knobs_stay_conditional():
    space = narrowed(MOBILENET, {"trainable_layers": {"low": 0, "high": 4}, "frozen_epochs": 2}, "--space")
    assert space.knobs["frozen_epochs"].domain == Unless(Choice((2,)), "trainable_layers", (0,))
    assert space.knobs["trainable_layers"].domain == Unless(Integer(0, 4), "weights", ("none",))
    rng = random.Random(0)
    drawn = [space.draw(rng) for _ in range(100)]
    assert {config.get("frozen_epochs") for config in drawn if config["trainable_layers"] == 0} == {None}
    assert {config.get("frozen_epochs") for config in drawn if config["trainable_layers"] != 0} == {2}


def test_a_value_that_can_never_be_active_is_fine():
    space = narrowed(CNN, {"optimizer": "adam", "momentum": 0.8}, "--space")
    assert "momentum" not in space.baseline


def test_weights_are_a_word_or_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "mine.pth").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    space = narrowed(MOBILENET, {"weights": ["none", "mine.pth"]}, "--space")
    assert space.knobs["weights"].domain == Choice(("none", str(tmp_path / "mine.pth")))
    for value, message in [
        (
            "publishd",
            "--weights: weights: value 'publishd' is not known: did you mean 'published'? allowed are none, published "
            "or a file (.pth, .pt, .safetensors)",
        ),
        (
            "other.pth",
            "--weights: weights: there is no file other.pth: allowed are published, none or a file "
            "(.pth, .pt, .safetensors)",
        ),
    ]:
        with pytest.raises(RequestError) as error:
            narrowed(MOBILENET, {"weights": value}, "--weights")
        assert str(error.value) == message


WHOLE = "allowed are whole numbers from 2 to 4096"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimizer: adma", "value 'adma' is not known: did you mean 'adam'? allowed are adam, adamw, rmsprop, sgd"),
        ("batch_norm: 1", "value '1' is not known: allowed are false, true"),
        ("dropout: 1.5", "1.5 is not allowed: allowed are numbers from 0 to 0.95"),
        ("dropout: true", "true is not allowed: allowed are numbers from 0 to 0.95"),
        ("dropout: lots", "lots is not allowed: allowed are numbers from 0 to 0.95"),
        ("dropout: .nan", "nan is not allowed: allowed are numbers from 0 to 0.95"),
        ("dropout: [0.1, [0.2]]", "[0.2] is not allowed: allowed are numbers from 0 to 0.95"),
        ("batch_size: 2.5", f"2.5 is not allowed: {WHOLE}"),
        ("batch_size: [16, 1]", f"1 is not allowed: {WHOLE}"),
        ("batch_size: []", f"there is no value: {WHOLE}"),
        ("batch_size:", f"there is no value: {WHOLE}"),
        ("batch_size: [16, 16]", "the option 16 is there twice"),
        ("batch_size: {low: 64, high: 16}", "low 64 is not below high 16"),
        ("batch_size: {low: 2, high: 10, step: 9}", "step 9 is not allowed: allowed are whole numbers from 1 to 8"),
        ("batch_size: {low: 1, high: 9, stop: 2}", "key of a range 'stop' is not known: did you mean 'step'? "
         "allowed are high, log, low, step"),
        ("batch_size: {low: 1}", "a range needs low and high: high is missing"),
        ("batch_size: {}", "a range needs low and high: low and high is missing"),
        ("dropout: {low: 0, high: 0.5, step: 1}", "step is for whole numbers: this knob takes any number of its range"),
        ("dropout: {low: 0, high: 0.5, log: true}", "a log range needs low above 0: low is 0, high is 0.5"),
        ("dropout: {low: 0, high: 0.5, log: 2}", "log is 2: allowed are true, false"),
        ("learning_rate: {low: 0.1, high: 1e-4}", "low 0.1 is not below high 0.0001"),
        ("learning_rate: {low: 0, high: 1e-4}", "0 is not allowed: allowed are numbers from 1e-08 to 10"),
        ("class_weights: {low: 0, high: 1}", "a range is for numbers: allowed are none, balanced"),
    ],
)  # fmt: skip
def test_every_kind_of_mistake(tmp_path, line, message):
    assert problems(tmp_path, line) == [f"space.yaml: {line.split(':')[0]}: {message}"]


def test_a_range_needs_two_numbers(tmp_path):
    assert problems(tmp_path, "trainable_layers: {low: 0, high: all}", MOBILENET) == [
        "space.yaml: trainable_layers: a range needs two numbers, not 0 and all"
    ]
    assert problems(tmp_path, "trainable_layers: some", MOBILENET) == [
        "space.yaml: trainable_layers: some is not allowed: allowed are whole numbers from 0 to 10000 or 'all'"
    ]


def test_all_mistakes_at_once_and_each_once(tmp_path):
    text = "lerning_rate: 1\ndropout: 2\nalexnet: {conv1_filter: 3, flip: 7}\ncnn: 5\n"
    found = problems(tmp_path, text)
    assert len(found) == 5
    assert found[0].startswith("space.yaml: knob or architecture 'lerning_rate' is not known: did you mean")
    assert "'learning_rate'" in found[0]
    assert found[1] == "space.yaml: cnn: found 5: an architecture needs a mapping of its knobs"
    assert found[2] == "space.yaml: dropout: 2 is not allowed: allowed are numbers from 0 to 0.95"
    assert found[3].startswith("space.yaml: alexnet: knob 'conv1_filter' is not known: did you mean 'conv1_filters'?")
    assert found[4] == "space.yaml: alexnet: flip: 7 is not allowed: allowed are numbers from 0 to 1"


def test_a_knob_that_no_selected_architecture_has(tmp_path):
    (message,) = problems(tmp_path, "conv1_kernel: 3", CNN)
    assert message.startswith("space.yaml: conv1_kernel is a knob of alexnet only: allowed here are ")
    (message,) = problems(tmp_path, "cnn: {conv1_kernel: 3}", CNN)
    assert message.startswith("space.yaml: cnn: conv1_kernel is a knob of alexnet only: allowed here are ")
    assert read(tmp_path, "conv1_kernel: 3")[1].knobs["conv1_kernel"].domain == Choice((3,))


def test_one_file_serves_every_search(tmp_path):
    text = "vgg11: {base_width: 16}\nalexnet: {whatever: 1}\ncnn: {depth: 3}\n"
    (cnn,) = read(tmp_path, text, CNN)
    assert cnn == narrowed(CNN, {"depth": 3}, "--space")
    assert problems(tmp_path, "vgg11: 3", CNN) == [
        "space.yaml: vgg11: found 3: an architecture needs a mapping of its knobs"
    ]
    (message,) = problems(tmp_path, "vgg: {base_width: 16}", CNN)
    assert message.startswith("space.yaml: knob or architecture 'vgg' is not known: did you mean 'vgg11'? allowed are ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing: lines like `name: value` are needed"),
        ("- flip", "holds a list: lines like `name: value` are needed"),
        ("flip: [0.1", "cannot be read: while parsing a flow sequence"),
        ("flip: 0.1\nshift: 0.1\nflip: 0.2", "space.yaml: flip is there twice, again in line 3"),
        ("cnn:\n  flip: 0.1\n  flip: 0.2", "space.yaml: flip is there twice, again in line 3"),
        ("flip: !!python/object/apply:os.getcwd []", "cannot be read: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_space_file(tmp_path, text, message):
    (found,) = problems(tmp_path, text)
    assert message in found
    assert "space.yaml" in found


def test_a_missing_file(tmp_path):
    with pytest.raises(RequestError, match=r"--space .*none\.yaml cannot be read: .*No such file"):
        read_space_file(tmp_path / "none.yaml", (CNN,))
