"""Whether a cluster lets a process in, asked of a stand-in for its head: 20 ms instead of Ray's 20 s."""

import json
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.access import address_here, authenticate, default_address
from foundation import RequestError

TOKEN = "0123456789abcdef"
Head = Callable[..., str]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_USE_TLS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def head() -> Iterator[Head]:
    """Return a function that starts a stand-in for a head, with or without a token, and gives its address."""
    servers = []

    def start(token: str | None = None, **versions: str) -> str:
        known = {"ray_version": metadata.version("ray"), "python_version": platform.python_version(), **versions}
        text = json.dumps(known).encode()

        def answer(_: bytes, context: Any) -> bytes:
            if token and ("authorization", f"Bearer {token}") not in context.invocation_metadata():
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b"\x0a\x00\x12" + bytes([len(text)]) + text

        server = grpc.server(ThreadPoolExecutor(1))
        handler = grpc.unary_unary_rpc_method_handler(answer)
        methods = {"InternalKVGet": handler}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("ray.rpc.InternalKVGcsService", methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def put_token(home: Path, token: str) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)


def test_a_cluster_without_tokens_is_joined_without_one_whatever_the_user_has(head: Head, tmp_path: Path) -> None:
    assert authenticate(head()) == "disabled"
    put_token(tmp_path, TOKEN)  # of another cluster
    assert authenticate(head()) == "disabled"


@pytest.mark.parametrize("place", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "file"])
def test_the_token_is_found_where_ray_would_look(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    put_token(tmp_path, f"{TOKEN}\n" if place == "file" else "another")
    (tmp_path / "token").write_text(TOKEN)
    if place != "file":
        monkeypatch.setenv(place, TOKEN if place == "RAY_AUTH_TOKEN" else str(tmp_path / "token"))
    assert authenticate(head(TOKEN)) == "token"


def test_no_token_says_where_to_put_it(head: Head, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="wants a token, and there is none here") as error:
        authenticate(head(TOKEN))
    assert f"neither RAY_AUTH_TOKEN nor {tmp_path}/.ray/auth_token" in str(error.value)
    assert "`ray get-auth-token` on its head" in str(error.value)


def test_a_wrong_token_names_where_it_stands(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    with pytest.raises(RequestError, match="the one in RAY_AUTH_TOKEN is not the cluster's"):
        authenticate(head(TOKEN))


@pytest.mark.parametrize("token", ["geheim\u00e9", "two\nlines"])
def test_a_token_that_is_none_is_refused_before_it_is_sent(
    head: Head, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(RequestError, match="the token in RAY_AUTH_TOKEN holds characters that none has"):
        authenticate(head(TOKEN))


def test_a_path_to_no_token_is_said(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match=r"RAY_AUTH_TOKEN_PATH .*nowhere cannot be read"):
        authenticate(head())


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"ray_version": "2.9.0"}, "runs Ray 2.9.0, and 2.60"),
        ({"python_version": "3.9.1"}, "runs Python 3.9.1, and 3.1"),
    ],
)
def test_another_version_is_named_with_ours(head: Head, versions: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        authenticate(head(**versions))


def test_what_is_no_head_is_told_apart() -> None:
    server = grpc.server(ThreadPoolExecutor(1))  # speaks the protocol, and knows nothing of Ray
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(RequestError, match=r"no head of a Ray cluster \(unimplemented\).*mostly 6379"):
        authenticate(f"127.0.0.1:{port}")
    server.stop(None).wait()


def test_a_head_made_by_ray_up_is_the_default_there_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_address() == "local"
    (tmp_path / "ray_bootstrap_config.yaml").touch()
    assert default_address() == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert default_address() == "10.0.0.1:6379"


def test_auto_is_the_cluster_that_this_host_is_part_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(RequestError, match="this host is part of no Ray cluster"):
        address_here()
    with pytest.raises(RequestError, match="--address local uses this machine alone"):
        address_here()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert address_here() == "10.0.0.1:6379"
