"""`convscout doctor` on the command line: one line each, the remedy, JSON, and exit codes. Ray is not started."""

import json
import os
import sys
from pathlib import Path

import pytest

import checkup
import convscout
from foundation import Finding


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [each for each in os.environ if each.startswith(("RAY_", "CONVSCOUT_FAULT"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        convscout.main(["doctor", *arguments])
    return int(ended.value.code or 0)


def test_a_machine_in_order_is_one_line_a_thing_and_exit_code_0(
    striped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(striped)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok      this machine: ", "WARNING this machine: ")) for line in lines)
    assert any("data: 120 images of 3 classes" in line for line in lines)
    assert all("Remedy: " in line for line in lines if line.startswith("WARNING"))


def test_what_would_make_a_search_fail_is_exit_code_2_with_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.yaml").write_text("cluster_name: x\nmax_worker: 3\nprovider: {type: awz}\n")
    (tmp_path / "file").write_text("")
    arguments = ("--cluster", "cluster.yaml", "--storage", str(tmp_path / "file" / "runs"))
    assert run(str(tmp_path / "no-such"), *arguments) == 2
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
    for part in ("storage: the storage", "data: data ", "did you mean 'max_workers'", "did you mean 'aws'"):
        assert any(part in line for line in problems), part


def test_json_has_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"host", "what", "state", "said", "remedy"} == set(rows[0])
    assert {row["host"] for row in rows} == {"this machine"}


def test_an_address_where_nothing_answers_is_a_problem_and_the_rest_is_told_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--address", "127.0.0.1:1") == 2
    lines = capsys.readouterr().out.splitlines()
    [problem] = [line for line in lines if line.startswith("PROBLEM")]
    assert "nothing answers there" in problem
    assert len(lines) > 5


def test_ray_is_not_started_for_this_machine_alone(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()


def test_a_finding_is_one_line_whatever_it_quotes() -> None:
    said = checkup.line("a", Finding("x", "problem", "two\nlines", "mend it"))
    assert said == "PROBLEM a: x: two lines. Remedy: mend it"
