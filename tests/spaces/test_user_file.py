import pytest

import spaces
from foundation import RequestError
from spaces import Integer

GOOD = """
from spaces import Integer, Knob

SPACE = {"width": Knob(Integer(8, 32, step=8), "filters", "small images")}
BASELINE = {"width": 16, "learning_rate": 0.01}


def build(image_shape, classes, *, width):
    raise NotImplementedError
"""


def load(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return spaces.load(str(path))


def test_a_users_architecture_is_one_file(tmp_path):
    space = load(tmp_path, GOOD)
    assert space.architecture == "mine"
    assert space.knobs["width"].domain == Integer(8, 32, step=8)
    assert space.baseline["width"] == 16
    assert space.baseline["learning_rate"] == 0.01
    assert set(space.knobs) == {*spaces.TRAINING, "width"}
    wider = spaces.narrowed(space, {"width": {"low": "4", "high": 128}}, "--space")
    assert wider.knobs["width"].domain == Integer(4, 128)
    assert spaces.Space.from_rows(wider.rows()) == wider


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("*, width", "*, widht", "build takes widht, which is not in SPACE"),
        ("*, width", "*, widht", "keyword-only argument of build 'width' is not known: did you mean 'widht'?"),
        ("*, width", "width", "keyword-only argument of build 'width' is not known"),
        ('"width": Knob', '"shift": Knob', "shift is a training knob of every architecture: SPACE needs another name"),
        ('"width": 16', '"width": 17', "baseline of mine is outside its space: width = 17 is out of range"),
        ('"width": 16, ', "", "baseline of mine is outside its space: width has no value"),
        ('"width": 16, ', '"width": 16, "wide": 1, ', "knob 'wide' is not known: did you mean 'width'?"),
        ("SPACE =", "SPACES =", "SPACE is needed, a mapping of names to spaces.Knob"),
        ('Knob(Integer(8, 32, step=8), "filters", "small images")', "3", "SPACE is needed, a mapping of names"),
        ("BASELINE =", "BASE =", "BASELINE is needed, a mapping of names to values"),
        ("def build", "def make", "build(image_shape, classes, *, knobs) is needed, a function that returns the model"),
        ("Integer(8, 32", "Integer(80, 32", "failed in line 4: ValueError: low 80 is not below high 32"),
        ("from spaces import", "from spaces import Nothing,", "failed in line 2: ImportError"),
        ("def build(", "def build((", "SyntaxError"),
        ("(image_shape, classes, ", "(image_shape, ",
         "build(image_shape, *, width) must take two positional arguments, image_shape and classes"),
        ("classes, ", "classes, more, ", "build(image_shape, classes, more, *, width) must take two positional"),
        ("def build(", "import sys\nsys.exit(3)\ndef build(", "failed in line 9: SystemExit: 3"),
    ],
)  # fmt: skip
def test_mistakes_in_a_users_file(tmp_path, before, after, message):
    assert before in GOOD
    with pytest.raises(RequestError) as error:
        load(tmp_path, GOOD.replace(before, after))
    assert message in str(error.value)
    assert "mine.py" in str(error.value)


def test_a_users_file_cannot_take_a_built_in_name(tmp_path):
    with pytest.raises(RequestError, match=r"alexnet is a built-in architecture: give the file another name"):
        load(tmp_path, GOOD, "alexnet.py")


def test_a_missing_file(tmp_path):
    with pytest.raises(RequestError, match=r"the architecture file .*gone\.py is not there"):
        spaces.load(str(tmp_path / "gone.py"))
