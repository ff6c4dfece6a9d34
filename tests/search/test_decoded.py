"""Who is asked to help with decoding, and that a cluster that does not answer is refused before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from foundation import RequestError
from search import request
from search.run import folder_of, search
from search.spec import make_spec
from trainables import decoding
from trainables.shared_out import Helpers


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Helpers | None]:
    """Return the helpers that images were decoded with."""
    found: list[Helpers | None] = []

    def prepare(data: str, *, helpers: Helpers | None, **_: Any) -> None:
        found.append(helpers)

    monkeypatch.setattr(request, "prepare", prepare)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


@pytest.mark.parametrize(
    ("address", "environment", "helped"),
    [(None, None, False), ("local", "10.0.0.1:6379", False), ("10.0.0.1:6379", None, True), (None, "10.0.0.1:1", True)],
)
def test_on_a_cluster_of_others_hosts_are_asked_to_help(
    asked: list[Helpers | None],
    address: str | None,
    environment: str | None,
    helped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    told: list[str] = []
    request.decoded(make_spec({"data": "digits", "address": address}, None), None, told.append)
    [helpers] = asked
    assert bool(helpers) == helped
    if helpers:
        helpers.tell("said")
        assert told == ["said"]


def test_a_cluster_that_does_not_answer_is_refused_before_decoding_ends_and_leaves_nothing(
    striped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SHARED_SECONDS", 0.0)
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "cache"))
    asked = {"data": str(striped), "arch": ("cnn",), "address": "127.0.0.1:1", "storage": str(tmp_path / "runs")}
    spec = make_spec(asked, None)
    with pytest.raises(RequestError, match=r"--address 127\.0\.0\.1:1: nothing answers there"):
        search(spec)
    assert not folder_of(spec).exists()
    assert not list((tmp_path / "cache").iterdir())
