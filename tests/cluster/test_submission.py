"""The line of Ray that runs a command of ours on a cluster: every argument arrives there as it was given."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster import submission
from convscout import app
from foundation import RequestError

HARD = ["search", "/my data/it's.zip", "--name", '$HOME `id` "x" ; *', "--tmux", "", "--stop", "ü~"]
READ_BY_RAY = """
import json, sys
from ray.scripts.scripts import submit
print(json.dumps(submit.make_context("submit", sys.argv[1:]).params))
"""
CLUSTER = """
cluster_name: c
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}
file_mounts: {~/sent: .}
"""


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "my cluster.yaml"
    path.write_text(CLUSTER)
    return path


def read_by_shell(line: str) -> list[str]:
    """Return the words that bash makes of a line."""
    show = f"{shlex.quote(sys.executable)} -c 'import sys; print(repr(sys.argv[1:]))' "
    said = subprocess.run(["bash", "-c", show + line], capture_output=True, text=True, check=True).stdout
    found: list[str] = eval(said)
    return found


def test_arguments_survive_the_shell_here_and_the_one_on_the_head(cluster: Path) -> None:
    here = read_by_shell(submission.printed(submission.ray_submit(cluster, HARD)))
    assert here[:2] == ["ray", "submit"]
    read = [sys.executable, "-c", READ_BY_RAY, *here[2:]]
    asked = json.loads(subprocess.run(read, capture_output=True, text=True, check=True, timeout=100).stdout)
    assert (asked["cluster_config_file"], asked["script"]) == (str(cluster), str(submission.FRONT_DOOR))
    assert (asked["tmux"], asked["stop"], asked["args"]) == (False, False, None)
    joined = " ".join(["python", "~/convscout.py", *asked["script_args"]])  # as Ray does
    assert read_by_shell(joined.removeprefix("python ~/convscout.py ")) == HARD


def test_a_job_takes_the_checkout_along_and_its_arguments_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    address, arguments = "http://127.0.0.1:8265", [*HARD, "--storage", "/all runs"]
    line = submission.printed(submission.ray_job_submit(address, arguments))
    here = read_by_shell(line)
    end = here.index("--")
    assert here[:end] == ["ray", "job", "submit", "--address", address, "--working-dir", str(submission.HOUSE)]
    assert here[end + 1 :] == ["python", "convscout.py", *arguments]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    line = submission.printed(submission.ray_job_submit(address, arguments))
    assert line.startswith("RAY_AUTH_MODE=token ray job submit ")
    assert "abc" not in line


def test_without_a_checkout_the_head_runs_what_is_installed_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(submission, "HOUSE", tmp_path)
    command = submission.ray_job_submit("http://head:8265", ["resume", "/shared/runs/x"])
    assert command[5:] == ["--", "convscout", "resume", "/shared/runs/x"]


@pytest.mark.parametrize("token", [None, "abc"])
def test_rays_command_is_told_whether_to_send_a_token(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    made = submission.environment({"PATH": "/bin"})
    assert made == {"PATH": "/bin", "RAY_AUTH_MODE": "token" if token else "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "digits"],
        ["search", "digits", "--storage", "runs"],
        ["search", "digits", "--storage=runs"],
        ["resume", "photos"],
    ],
)
def test_a_job_whose_results_would_go_with_it_is_refused(arguments: list[str]) -> None:
    with pytest.raises(RequestError, match="a job runs in a folder that goes with the cluster"):
        submission.ray_job_submit("http://head:8265", arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "digits", "--storage=/shared/runs"],
        ["search", "digits", "--storage", "s3://bucket/runs"],
        ["resume", "/shared/runs/photos"],
        ["resume", "photos", "--storage", "/shared/runs"],
        ["data", "digits"],
        ["search", "--config", "search.yaml"],
    ],
)
def test_a_job_whose_results_stay_is_not(arguments: list[str]) -> None:
    assert submission.ray_job_submit("http://head:8265", arguments)[-len(arguments) :] == arguments


def test_the_dashboards_address_is_asked_for() -> None:
    with pytest.raises(RequestError, match=r"--job 10.0.0.1:6379: write the dashboard's address, such as http://"):
        submission.ray_job_submit("10.0.0.1:6379", ["search", "digits"])


def test_files_of_this_machine_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("space.yaml", "sent/photos.zip", "run"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    arguments = ["search", "sent/photos.zip", "--space=space.yaml", "--name", "run", "--arch", "nowhere.py"]
    described = {"file_mounts": {"~/sent": "sent", "/data": "."}}
    (said,) = submission.left_behind(arguments, described)
    assert said.startswith("space.yaml is on this machine")
    assert "begins in the head's home folder" in said
    (said,) = submission.left_behind(["search", str(tmp_path / "space.yaml")], described)
    assert "fine if all hosts share that folder" in said
    assert len(submission.left_behind(arguments, None)) == 2  # a job takes the checkout along, and no more


def test_print_only_prints_one_line_that_can_be_pasted(cluster: Path) -> None:
    done = CliRunner().invoke(app, ["submit", str(cluster), "--print", "--", "search", "my data", "--trials", "3"])
    assert done.exit_code == 0
    assert (
        done.stdout == f"ray submit '{cluster}' {submission.FRONT_DOOR} -- search ''\"'\"'my data'\"'\"'' --trials 3\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CLUSTER"], "what is to run there? Write it after --"),
        (["CLUSTER", "--", "serach", "digits"], "command 'serach' is not known: did you mean 'search'?"),
        (["--", "search", "digits"], "on which cluster? Name its file first, convscout submit CLUSTER.yaml -- search"),
        (["no.yaml", "--", "search", "digits"], "the cluster file no.yaml cannot be read"),
    ],
)
def test_a_wrong_request_is_refused_before_ray_starts(cluster: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["submit", *(str(cluster) if word == "CLUSTER" else word for word in words)])
    assert isinstance(done.exception, RequestError)
    assert said in str(done.exception)
