"""What would go wrong on this machine: its ports, its token, its storage."""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster.environment import environment_findings
from cluster.gpus import gpu_findings
from cluster.inspection import MODULES, disk_findings, import_findings, memory_findings, version_findings
from cluster.storage import experiment_folder
from foundation import Finding, RequestError

PORTS = {
    6006: ("TensorBoard", "give `convscout tensorboard` another --port"),
    6379: (
        "`ray start --head` and `ray up`",
        "give another --port to `ray start`; a search on this machine needs none",
    ),
}
MODES = ("disabled", "token")


def machine_findings(storage: str) -> list[Finding]:
    """Return what this machine has and lacks for a search; Ray is not started."""
    found = version_findings({}) + import_findings(MODULES)
    found += [storage_finding(storage), *disk_findings(), *memory_findings(), *gpu_findings()]
    found += [*authentication_findings(os.environ, Path.home()), *environment_findings(os.environ, of_driver=True)]
    return found + [port_finding(port) for port in PORTS]


def storage_finding(storage: str) -> Finding:
    """Return whether experiments can be written to the storage."""
    try:
        folder = experiment_folder(storage, "doctor").parent
    except RequestError as error:
        return Finding(
            "storage", "problem", *(str(error).split(": give ", 1) if ": give " in str(error) else [str(error)])
        )
    return Finding("storage", "ok", f"{folder} can be written")


def port_finding(port: int, host: str = "127.0.0.1") -> Finding:
    """Return whether a port of this machine is free for what wants it."""
    wants, remedy = PORTS.get(port, ("", ""))
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else one that was used a minute ago counts
        try:
            trying.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Finding("ports", "warning", f"{port} cannot be used by {wants} ({error.strerror})", remedy)
            return Finding("ports", "warning", f"{port}, for {wants}, is in use", remedy)
    return Finding("ports", "ok", f"{port}, for {wants}, is free")


def authentication_findings(environment: Mapping[str, str], home: Path) -> list[Finding]:
    """Return whether the token is in order that a cluster of others may ask for, as Ray 2.60 looks for it.

    It takes `RAY_AUTH_TOKEN`, else the file that `RAY_AUTH_TOKEN_PATH` names, else `~/.ray/auth_token`.
    """
    mode = environment.get("RAY_AUTH_MODE")
    if mode is not None and mode.lower() not in MODES:
        said = f"RAY_AUTH_MODE is {mode!r}: allowed are {', '.join(MODES)}"
        return [Finding("authentication", "problem", said, "unset RAY_AUTH_MODE, or set it to one of these")]
    state = "problem" if mode and mode.lower() == "token" else "warning"
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return [Finding("authentication", "ok", "a token is in RAY_AUTH_TOKEN")]
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else home / ".ray" / "auth_token"
    make = "`ray get-auth-token --generate` makes one; a cluster takes only that of its head"
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if named:
            said = f"RAY_AUTH_TOKEN_PATH names {path}, which is not there"
            return [
                Finding("authentication", state, said, "put the cluster's token there, or unset RAY_AUTH_TOKEN_PATH")
            ]
        if state == "problem":
            return [Finding("authentication", "problem", f"RAY_AUTH_MODE is token, and there is none in {path}", make)]
        said = "no token: this machine alone needs none, a cluster with tokens refuses"
        return [Finding("authentication", "ok", said)]
    except (OSError, UnicodeDecodeError) as error:
        return [Finding("authentication", state, f"the token {path} cannot be read ({error})", make)]
    if not token:
        return [Finding("authentication", state, f"the token {path} is empty", make)]
    with suppress(OSError):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            said = f"others on this machine may read the token {path}"
            return [Finding("authentication", "warning", said, f"chmod 600 {path}")]
    return [Finding("authentication", "ok", f"a token is in {path}")]
