"""The command line: exit codes, the texts of mistakes, and that nothing heavy is loaded before it is needed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import convscout
import terminal
from cluster.connect import disconnect

HOUSE = Path(__file__).parents[1]
SLOW = {"torch", "ray", "tensorboard", "scipy"}


@pytest.fixture(autouse=True, scope="module")
def _leave_ray() -> Iterator[None]:
    yield
    disconnect()


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return the exit code of a command line, and what it wrote to stdout and stderr, on one line each."""
    code = 0
    try:
        convscout.main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    written = capfd.readouterr()
    return code, " ".join(written.out.split()), " ".join(written.err.split())


@pytest.mark.parametrize("module", ["search.run", "cluster.storage"])
def test_a_search_imports_what_is_slow_beside_the_start_of_ray(module: str) -> None:
    script = f"import sys, {module}; found = {SLOW} & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOUSE, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_loads_neither_torch_nor_ray_and_names_every_command() -> None:
    script = (
        "import sys, convscout\n"
        "try: convscout.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'numpy', 'cv2', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOUSE, timeout=60)
    assert done.returncode == 0, done.stderr
    for command in (
        "data",
        "spaces",
        "search",
        "plan",
        "resume",
        "runs",
        "show",
        "stop",
        "analyze",
        "report",
        "predict",
        "export",
    ):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "Did you mean 'search'?"),
        (["plan", "digits", "--finalists", "0", "--folds", "1"], "--folds 1: 2 or more make a cross-validation"),
        (["plan", "digits", "--method", "tpa"], "method 'tpa' is not known: did you mean 'tpe'?"),
        (["plan", "digits", "--price-per-hour", "-1"], "Input should be greater than or equal to 0"),
        (["plan", "digits", "--arch", "alexnett"], "architecture 'alexnett' is not known: did you mean 'alexnet'?"),
        (["search", "digits", "--trails", "5"], "--trials"),
        (["search", "digits", "--trials", "many"], "Input should be a valid integer"),
        (["search", "digits", "--method", "tpa"], "method 'tpa' is not known: did you mean 'tpe'?"),
        (["search", "digits", "--arch", "alexnett"], "architecture 'alexnett' is not known: did you mean 'alexnet'?"),
        (["search", "digits", "--arch", "cnn", "--arch", "cnn"], "the architecture 'cnn' is there twice"),
        (["search", "digits", "--arch", "cnn", "--weights", "none"], "none of cnn takes pretrained weights"),
        (["search", "digits", "--name", "../x", "--arch", "cnn"], "--name '../x': use letters, digits"),
        (["search", "digits", "--storage", "s4://bucket"], "protocol 's4' is not known: did you mean 's3'?"),
        (["search", "digit", "--arch", "cnn"], "digits"),
        (["search"], "data is missing"),
        (["data", "nowhere/photos"], "does not exist"),
        (["spaces", "vgg12"], "did you mean 'vgg11'?"),
        (["show", "nothing"], "experiment 'nothing' is not known"),
        (["analyze", "nothing"], "experiment 'nothing' is not known"),
        (["resume", "nothing"], "experiment 'nothing' is not known"),
        (["predict", "nothing", "image.png"], "experiment 'nothing' is not known"),
        (
            ["predict", "nothing", "image.png", "--csv", "no/x.csv"],
            "--csv no/x.csv: it is in a folder that does not exist",
        ),
        (["data", "digits", "--html", "no/x.html"], "--html no/x.html: it is in a folder that does not exist"),
        (["runs", "--storage", "nope"], "--storage nope:"),
        (["search", "digits", "--arch", "cnn", "--cpus-per-trial", "999"], "lower --cpus-per-trial"),
        (["search", "digits", "--arch", "cnn", "--address", "127.0.0.1:1"], "nothing answers there"),
        (["search", "digits", "--arch", "cnn", "--address", "nonsense"], "write HOST:PORT"),
        (["search", "digits", "--space", ""], "--space ''"),
    ],
)
def test_a_wrong_request_exits_with_2_and_says_what_is_allowed(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = run(capfd, *arguments)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_all_mistakes_of_a_space_file_come_at_once(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text("learning_rte: 0.1\ndropout: {low: 0.9, high: 0.1}\noptimizer: [adm]\n")
    code, _, err = run(capfd, "search", "digits", "--arch", "cnn", "--space", "space.yaml")
    assert code == 2
    assert err.count("error:") == 3
    assert "did you mean 'learning_rate'?" in err
    assert "0.9" in err
    assert "0.1" in err
    assert "'adm'" in err


def test_storage_that_cannot_be_written_is_refused_before_ray_starts(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("search.run.open_session", lambda *_, **__: pytest.fail("Ray was to be started"))
    code, _, err = run(capfd, "search", "digits", "--arch", "cnn", "--storage", str(tmp_path / "file"))
    assert code == 2
    assert "cannot be written" in err
    assert "--storage" in err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no image"),
        (lambda folder: (folder / "cat").mkdir(), "holds no image"),
        (lambda folder: (folder / "a.png").write_bytes(b"x"), "class"),
    ],
)
def test_a_data_folder_that_cannot_be_used(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, make: object, message: str
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    code, _, err = run(capfd, "data", str(folder))
    assert code == 2
    assert message in err


def test_one_class_is_not_enough(capfd: pytest.CaptureFixture[str], tmp_path: Path, striped: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "class0").symlink_to(striped / "class0")
    code, _, _ = run(capfd, "data", str(folder))
    assert code == 2


def test_data_shows_counts_and_writes_a_page(capfd: pytest.CaptureFixture[str], tmp_path: Path, striped: Path) -> None:
    page = tmp_path / "page.html"
    code, out, _ = run(capfd, "data", str(striped), "--html", str(page))
    assert code == 0
    assert "class0" in out
    assert "120" in out
    assert out.endswith(f"Page: {page}")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    code, out, _ = run(capfd, "data", str(striped), "--json")
    assert sum(row["train"] for row in json.loads(out)["rows"]) > 70


def test_spaces_lists_the_architectures_and_one_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "spaces", "--json")
    assert code == 0
    assert {"cnn", "alexnet", "vgg11", "mobilenet_v2"} <= {row["architecture"] for row in json.loads(out)}
    code, out, _ = run(capfd, "spaces", "cnn", "--json")
    assert {"knob", "range", "unit", "baseline", "why"} == set(json.loads(out)[0])


def test_a_storage_without_experiments_has_none(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capfd, "runs", "--storage", str(tmp_path)) == (0, "There are none.", "")


@pytest.mark.parametrize(("asked", "message"), [("-5", "write +20"), ("x", "write +20")])
def test_extending_by_nonsense_is_refused(asked: str, message: str) -> None:
    from foundation import RequestError
    from search.extended import trials_in_all

    with pytest.raises(RequestError) as caught:
        trials_in_all(asked, 10)
    assert message in str(caught.value)
    with pytest.raises(RequestError, match="cannot shrink"):
        trials_in_all("9", 10)
    assert (trials_in_all("+5", 10), trials_in_all("15", 10), trials_in_all(None, 10)) == (15, 15, 10)


def test_an_interrupted_command_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise KeyboardInterrupt

    assert terminal.exit_code(work) == 130
    assert capfd.readouterr() == ("", "Interrupted.\n")
    assert terminal.exit_code(work, again=lambda: "its parent tells") == 130
    assert capfd.readouterr() == ("", "")
