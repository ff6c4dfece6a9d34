"""The rules of the house, held by a test: who may import whom, who may import ray, who may open the test split."""

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
ROOMS = ("spaces", "trainables", "cluster", "search", "analysis")
DOWNSTAIRS = {"spaces", "trainables", "cluster"}
MAY_USE = {
    "spaces": set(),
    "trainables": set(),
    "cluster": set(),
    "search": DOWNSTAIRS,
    "analysis": DOWNSTAIRS,
}
MAY_IMPORT_RAY = {"trainables/trainable.py"} | {
    f"cluster/{name}.py" for name in ("asking", "connect", "launch", "launch_together", "tune_hooks", "yaml_check")
}
BESIDE = ("benchmarks", "examples")  # no rooms, but kept as small
MAY_OPEN_TEST = {"trainables/cache.py", "analysis/evaluate.py"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 50


def sources() -> list[str]:
    files = [path for room in ROOMS for path in (HOUSE / room).rglob("*.py")] + list(HOUSE.glob("*.py"))
    return sorted(str(path.relative_to(HOUSE)) for path in files)


def beside() -> list[str]:
    files = [path.relative_to(HOUSE) for folder in BESIDE for path in (HOUSE / folder).rglob("*.py")]
    return sorted(str(path) for path in files if ".venv" not in path.parts)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.fixture(params=sources())
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tree(source: str) -> ast.Module:
    return ast.parse((HOUSE / source).read_text(encoding="utf-8"))


def test_a_room_uses_only_the_floor_below_it(source: str, tree: ast.Module) -> None:
    room = source.split("/")[0]
    if room not in ROOMS:
        return
    used = {name.split(".")[0] for name in imported(tree)} & set(ROOMS) - {room}
    assert used <= MAY_USE[room]
    front_door = {"checkup", "convscout", "delivery", "looking", "options", "planning", "submitting", "terminal"}
    assert not front_door & set(imported(tree))


def test_only_the_named_files_import_ray(source: str, tree: ast.Module) -> None:
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(tree))
    assert not uses_ray or source in MAY_IMPORT_RAY


def test_only_the_evaluation_opens_the_test_split(source: str, tree: ast.Module) -> None:
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert "open_test" not in names or source in MAY_OPEN_TEST


@pytest.mark.parametrize("file", [*sources(), *beside()])
def test_files_and_functions_stay_small(file: str) -> None:
    text = (HOUSE / file).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_the_front_door_is_light(tree: ast.Module, source: str) -> None:
    """`--help` must not import torch or ray: at its top the front door imports neither a room nor anything heavy."""
    if source in (
        "checkup.py",
        "convscout.py",
        "delivery.py",
        "looking.py",
        "options.py",
        "planning.py",
        "submitting.py",
        "terminal.py",
        "foundation.py",
    ):
        top = {name for node in tree.body for name in imported(node) if isinstance(node, ast.Import | ast.ImportFrom)}
        heavy = {name for name in top if name.split(".")[0] in {*ROOMS, "torch", "ray", "numpy", "cv2", "pandas"}}
        assert not heavy


def test_every_room_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(HOUSE / "setup.cfg")
    assert set(ROOMS) <= set(setup["options"]["packages"].split())
    front_door = {
        "checkup",
        "convscout",
        "delivery",
        "foundation",
        "looking",
        "options",
        "planning",
        "submitting",
        "terminal",
    }
    assert front_door == set(setup["options"]["py_modules"].split())
