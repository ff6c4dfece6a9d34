"""Whether a cluster lets this process in: asked of its head by one call, before Ray is imported.

Ray reads its mode of authentication once, while it is imported, and takes 20 s to say that a token is wrong; this
takes some 20 ms. The head's answer also tells its versions.
"""

import json
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from foundation import RequestError

ANSWER_SECONDS = 5.0
TOKEN_FILE = Path("~/.ray/auth_token")
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # `ray up` writes it on the head, and nowhere else
CLUSTER_METADATA = b"\x0a\x10CLUSTER_METADATA\x12\x07cluster"  # an InternalKVGetRequest: key and namespace
TOKEN_REMEDY = (
    f"put the cluster's token (`ray get-auth-token` on its head) into {TOKEN_FILE}, or into RAY_AUTH_TOKEN, and make "
    "that file readable by you alone"
)


def default_address() -> str:
    """Return the cluster that a process uses that was told of none: `auto` on a head made by `ray up`, else `local`.

    `ray submit` tells the script nothing; on the head of a cluster nobody means a second one beside it.
    """
    return os.environ.get("RAY_ADDRESS") or ("auto" if BOOTSTRAP.expanduser().exists() else "local")


def address_here() -> str:
    """Return the HOST:PORT of the cluster that `ray start` made this host a part of; `RequestError` if of none."""
    note = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        return note.read_text(encoding="utf-8").strip()
    except OSError:
        raise RequestError(
            "--address auto: this host is part of no Ray cluster. Start one by `ray up CLUSTER.yaml`, or by `ray start "
            "--head` here; --address local uses this machine alone (auto is what a host uses that `ray up` once made a "
            f"head, which left {BOOTSTRAP})"
        ) from None


def token_here() -> bool:
    """Whether the user has a token where Ray would look for it; `RequestError` where it can be none."""
    return _token()[0] is not None


def authenticate(address: str) -> str:
    """Return the mode of authentication of the cluster at HOST:PORT, `token` or `disabled`, having been let in.

    Raises `RequestError` when it wants a token and there is none here or another, when what listens is no head of
    Ray, and when the cluster runs another version of Ray or Python.
    """
    import grpc

    token, where = _token()
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):  # Ray's own certificates: it says what is wrong
        return "token" if token else "disabled"
    mode = "disabled"
    try:
        answer = _ask(address, None)
        if answer is None:
            mode, answer = "token", _ask(address, token) if token else None
    except grpc.RpcError as error:
        raise RequestError(
            f"--address {address}: what answers there is no head of a Ray cluster ({error.code().name.lower()}). Give "
            "the port that `ray start --head` named, mostly 6379; 8265 is the dashboard's"
        ) from None
    if answer is None:
        found = f"the one in {where} is not the cluster's" if token else f"there is none here ({where})"
        raise RequestError(f"--address {address}: this cluster wants a token, and {found}: {TOKEN_REMEDY}")
    _check_versions(address, answer)
    return mode


def _ask(address: str, token: str | None) -> bytes | None:
    """Return the metadata of the cluster, None where it does not let us in."""
    import grpc
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.unknown_fields import UnknownFieldSet

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        method = channel.unary_unary("/ray.rpc.InternalKVGcsService/InternalKVGet")
        header = [("authorization", f"Bearer {token}")] if token else []
        try:
            answer = method(CLUSTER_METADATA, timeout=ANSWER_SECONDS, metadata=header)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return None
            raise
    fields = {field.field_number: field.data for field in UnknownFieldSet(Empty.FromString(answer))}
    return bytes(fields.get(2, b""))  # of an InternalKVGetReply


def _token() -> tuple[str | None, str]:
    """Return the token that Ray would use and where it stands, in Ray's order; None and where it was looked for."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _checked(token, "RAY_AUTH_TOKEN"), "RAY_AUTH_TOKEN"
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else TOKEN_FILE.expanduser()
    where = f"RAY_AUTH_TOKEN_PATH, {path}" if given else str(path)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if given:
            raise RequestError(f"RAY_AUTH_TOKEN_PATH {path} cannot be read: {error}: {TOKEN_REMEDY}") from None
        return None, f"neither RAY_AUTH_TOKEN nor {path}"
    return _checked(token, where), where


def _checked(token: str, where: str) -> str | None:
    if not (token.isascii() and token.isprintable()):
        raise RequestError(f"the token in {where} holds characters that none has: {TOKEN_REMEDY}")
    return token or None


def _check_versions(address: str, answer: bytes) -> None:
    """Raise `RequestError` unless the cluster's versions are ours: what Ray sends between processes depends on both."""
    if not answer:
        return
    theirs = json.loads(answer)
    ours = {"ray": metadata.version("ray"), "python": platform.python_version()}
    differ = [
        f"{name.capitalize()} {theirs[f'{name}_version']}, and {version} is here"
        for name, version in ours.items()
        if theirs[f"{name}_version"] != version
    ]
    if differ:
        raise RequestError(
            f"--address {address}: the cluster runs {'; '.join(differ)} ({sys.executable}): install the same on every "
            "host (requirements.lock has our versions), or run convscout on the cluster by `convscout submit`"
        )
