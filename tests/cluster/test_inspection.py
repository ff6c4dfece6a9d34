import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from cluster import inspection
from cluster.inspection import (
    check_hosts,
    code_digest,
    disk_findings,
    import_findings,
    look,
    memory_findings,
    reach_findings,
    sentence,
    version_findings,
)
from cluster.storage import versions
from foundation import Finding, RequestError

Usage = namedtuple("Usage", ["total", "used", "free"])


def test_other_versions_of_what_must_be_equal_are_a_problem_and_of_the_rest_a_warning() -> None:
    expected = versions() | {"code": code_digest()}
    [same] = version_findings(expected)
    assert same.state == "ok"
    found = version_findings(expected | {"ray": "2.59.0", "torch": "2.0.0", "code": "0"})
    states = {each.said.split()[2]: each.state for each in found}
    assert states == {"ray": "problem", "torch": "warning", "other": "problem"}
    ray = next(each for each in found if "ray" in each.said)
    assert ray.said == f"it has ray {versions()['ray']}, the driver 2.59.0"
    assert ray.remedy == f"install ray 2.59.0 there, or start the search with ray {versions()['ray']}"


def test_a_package_that_breaks_on_import_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_on_import.py").write_text("raise OSError('libGL.so.1: cannot open')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    [found] = import_findings(["json", "breaks_on_import"])
    assert found.state == "problem"
    assert "breaks_on_import cannot be imported (OSError: libGL.so.1: cannot open)" in found.said
    assert import_findings(["json"])[0].state == "ok"


@pytest.mark.parametrize(("free", "state"), [(5 * 10**7, "problem"), (10**9, "warning"), (50 * 10**9, "ok")])
def test_a_disk_that_is_full_is_a_problem_and_one_that_ray_takes_for_full_a_warning(
    free: int, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * 10**9, 0, free))
    [found] = disk_findings(tmp_path)
    assert found.state == state
    assert bool(found.remedy) == (state != "ok")


def test_little_memory_and_little_shared_memory_are_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * 10**6, 0, 64 * 10**6))  # Docker's default
    memory, shared = memory_findings(tmp_path, total_bytes=16 * 10**9)
    assert memory.state == "ok"
    assert shared.state == "warning"
    assert "--shm-size" in shared.remedy
    assert memory_findings(tmp_path, total_bytes=10**9)[0].state == "warning"
    assert len(memory_findings(tmp_path / "none", total_bytes=16 * 10**9)) == 1


def test_a_host_that_is_not_reached_is_named() -> None:
    with socket.socket() as listening, socket.socket() as closed:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        closed.bind(("127.0.0.1", 0))
        there, gone = listening.getsockname()[1], closed.getsockname()[1]
        [found] = reach_findings([("a", "127.0.0.1", there), ("b", "127.0.0.1", gone)])
        assert found.state == "problem"
        assert found.said.startswith(f"it does not reach host b at 127.0.0.1:{gone} (")
        [well] = reach_findings([("a", "127.0.0.1", there)])
        assert well.state == "ok"
    assert reach_findings([]) == []


def test_a_look_holds_what_is_asked_for_besides() -> None:
    extra = Finding("data", "problem", "it has no room", "make some")
    found = look(versions(), [lambda: extra, lambda: None], [])
    assert extra in found
    assert None not in found


def test_all_problems_of_all_hosts_are_one_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Finding("data", "problem", "it has no room", "make some")
    harmless = Finding("memory", "warning", "it has little")
    monkeypatch.setattr(inspection, "is_own_cluster", lambda: False)
    monkeypatch.setattr(inspection, "inspected", lambda _: [("a", problem), ("a", harmless), ("b", problem)])
    with pytest.raises(RequestError) as refused:
        check_hosts([], ["the storage is not shared"])
    assert refused.value.problems == (
        "host a: it has no room: make some",
        "host b: it has no room: make some",
        "the storage is not shared",
    )
    monkeypatch.setattr(inspection, "inspected", lambda _: [("a", harmless)])
    check_hosts([])


def test_on_a_cluster_of_our_own_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "is_own_cluster", lambda: True)
    monkeypatch.setattr(inspection, "inspected", lambda _: pytest.fail("hosts were asked"))
    check_hosts([])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ModuleNotFoundError("No module named 'cluster'"), "cannot be imported there (No module named 'cluster')"),
        (TimeoutError("no answer within 60 s"), "it could not be asked: no answer within 60 s"),
        (ConnectionError("the worker died"), "it could not be asked: the worker died"),
    ],
)
def test_a_host_that_gives_no_answer_is_a_problem_with_a_remedy(answer: Exception, said: str) -> None:
    [found] = inspection._findings(answer)
    assert said in sentence("a", found)
    assert found.state == "problem"
    assert found.remedy
