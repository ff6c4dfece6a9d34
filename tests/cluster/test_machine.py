import os
import socket
from pathlib import Path

import pytest

from cluster.machine import authentication_findings, machine_findings, port_finding, storage_finding


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ray").mkdir()
    return tmp_path


def token(home: Path, content: str = "secret", mode: int = 0o600) -> Path:
    path = home / ".ray" / "auth_token"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    return path


def found(environment: dict[str, str], home: Path) -> tuple[str, str]:
    [finding] = authentication_findings(environment, home)
    assert "secret" not in finding.said + finding.remedy
    assert bool(finding.remedy) == (finding.state != "ok")
    return finding.state, finding.said


def test_without_a_token_this_machine_alone_is_fine(home: Path) -> None:
    assert found({}, home)[0] == "ok"
    assert found({"RAY_AUTH_MODE": "disabled"}, home)[0] == "ok"


def test_a_token_is_looked_for_as_ray_does(home: Path) -> None:
    path = token(home)
    assert found({}, home) == ("ok", f"a token is in {path}")
    assert found({"RAY_AUTH_TOKEN": "secret2"}, home) == ("ok", "a token is in RAY_AUTH_TOKEN")
    other = home / "other"
    other.write_text("secret", encoding="utf-8")
    other.chmod(0o600)
    assert found({"RAY_AUTH_TOKEN_PATH": str(other)}, home) == ("ok", f"a token is in {other}")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_AUTH_MODE": "token"}, "and there is none in"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/no/such"}, "/no/such, which is not there"),
        ({"RAY_AUTH_MODE": "tokens"}, "allowed are disabled, token"),
    ],
)
def test_a_token_that_is_wanted_and_missing_is_a_problem(environment: dict[str, str], said: str, home: Path) -> None:
    state, text = found(environment, home)
    assert state == "problem"
    assert said in text


def test_an_empty_token_or_one_that_others_can_read_is_said(home: Path) -> None:
    token(home, "\n")
    assert found({"RAY_AUTH_MODE": "token"}, home)[0] == "problem"
    assert found({}, home)[0] == "warning"
    token(home, mode=0o644)
    state, text = found({}, home)
    assert state == "warning"
    assert "others on this machine may read" in text


def test_a_port_in_use_is_a_warning_with_what_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        monkeypatch.setitem(__import__("cluster.machine", fromlist=["PORTS"]).PORTS, port, ("a test", "use another"))
        taken = port_finding(port)
    assert (taken.state, taken.said, taken.remedy) == ("warning", f"{port}, for a test, is in use", "use another")
    assert port_finding(port).state == "ok"


def test_storage_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    assert storage_finding(str(tmp_path / "new" / "runs")).state == "ok"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    bad = storage_finding(str(tmp_path / "file" / "runs"))
    assert bad.state == "problem"
    assert "--storage" in bad.remedy


def test_a_machine_that_can_search_has_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith(("RAY_", "CONVSCOUT_FAULT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    everything = machine_findings(str(tmp_path))
    assert not [each for each in everything if each.state == "problem"]
    assert {"versions", "convscout", "storage", "disk", "memory", "authentication", "environment", "ports"} <= {
        each.what for each in everything
    }
