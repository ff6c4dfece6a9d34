"""The command of Ray that runs one of ours on a cluster's head, quoted so that every argument arrives as it was.

`ray submit` joins what it is given with spaces and lets a shell on the head read the line; `ray job submit` quotes.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.access import token_here
from foundation import Problems, RequestError, unknown_word

HOUSE = Path(__file__).parents[1]
FRONT_DOOR = HOUSE / "convscout.py"
VERBS = ("analyze", "data", "plan", "report", "reproduce", "rescue", "resume", "runs", "search", "show", "stop")
OF_A_RUN = ("analyze", "report", "reproduce", "rescue", "resume", "show", "stop")  # their first argument is one


def split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the cluster's file and the arguments that follow it; `RequestError` where the first word is a command."""
    if words[0] in VERBS and not Path(words[0]).is_file():
        example = f"convscout submit CLUSTER.yaml -- {words[0]} ..."
        raise RequestError(f"on which cluster? Name its file first, {example}, or --job ADDRESS")
    return Path(words[0]), list(words[1:])


def check_arguments(arguments: Sequence[str], example: str) -> None:
    """Raise `RequestError` unless the arguments begin with a command that can run on a head; `example` shows how."""
    if not arguments:
        raise RequestError(f"what is to run there? Write it after --, such as: {example} -- search DATA")
    if arguments[0] not in VERBS:
        raise RequestError(f"after --: {unknown_word('command', arguments[0], VERBS)}")


def ray_submit(cluster: Path, arguments: Sequence[str]) -> list[str]:
    """Return the words of the `ray submit` that runs our arguments on the head of a cluster."""
    return ["ray", "submit", str(cluster), str(FRONT_DOOR), "--", *(shlex.quote(each) for each in arguments)]


def ray_job_submit(address: str, arguments: Sequence[str]) -> list[str]:
    """Return the words of the `ray job submit` that runs our arguments on a cluster, with the code of this checkout.

    Raises `RequestError` where the results would lie in the job's own folder, which goes with the cluster.
    """
    if "://" not in address:
        raise RequestError(
            f"--job {address}: write the dashboard's address, such as http://127.0.0.1:8265 (`ray dashboard "
            "CLUSTER.yaml` brings it here)"
        )
    _check_storage(arguments)
    command = ["ray", "job", "submit", "--address", address]
    if (HOUSE / "setup.cfg").exists():
        return [*command, "--working-dir", str(HOUSE), "--", "python", FRONT_DOOR.name, *arguments]
    return [*command, "--", "convscout", *arguments]  # installed here, so there is no checkout to send


def environment(before: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which Ray's command runs: Ray sends a token only where it is told to."""
    mode = "token" if token_here() else "disabled"
    return {"RAY_USAGE_STATS_ENABLED": "0", **before, "RAY_AUTH_MODE": mode}


def printed(command: Sequence[str]) -> str:
    """Return the line to paste into a shell here."""
    mode = "RAY_AUTH_MODE=token " if token_here() and command[1] == "job" else ""
    return mode + shlex.join(command)


def left_behind(arguments: Sequence[str], described: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence for each file of this machine that the arguments name and the head may not have.

    `described` is the cluster's file, whose `file_mounts` go there; None for a job, which takes the checkout along.
    """
    mounts = [] if described is None else [str(each) for each in described.get("file_mounts", {})]
    found = []
    for word in arguments[1:]:
        path = Path(word.partition("=")[2] if word.startswith("--") and "=" in word else word)
        if not (os.sep in str(path) or path.suffix) or not path.expanduser().exists():
            continue
        if described is None and not path.is_absolute() and (HOUSE / path).exists():
            continue
        if any(_lies_in(path, Path(mount)) for mount in mounts):
            continue
        where = "a relative path begins in the head's home folder" if described is not None else "it is not sent along"
        if path.is_absolute():
            where = "fine if all hosts share that folder"
        found.append(
            f"{path} is on this machine; on the head it is looked for there under that name ({where}). To send it, "
            "list it under file_mounts in the cluster's file and `ray up` again"
        )
    return found


def _lies_in(path: Path, mount: Path) -> bool:
    """Whether a path of the command line is one that `file_mounts` makes on the head, whose home folder is ~."""
    if mount.parts[:1] == ("~",) and not path.is_absolute() and path.parts[:1] != ("~",):
        path = Path("~") / path  # where `ray submit` starts
    return path.is_relative_to(mount)


def _check_storage(arguments: Sequence[str]) -> None:
    if "--config" in arguments:
        return  # it may say where
    values = {"--storage": "runs"}
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--storage":
            values[name] = value if equals else after
    kept = [values["--storage"]]
    if arguments[0] in OF_A_RUN and len(arguments) > 1:
        kept.append(arguments[1])
    problems = Problems()
    if arguments[0] not in ("data", "plan") and not any(each.startswith("/") or "://" in each for each in kept):
        problems.add(
            f"--storage {values['--storage']}: a job runs in a folder that goes with the cluster; give an absolute "
            "path that all hosts share"
        )
    problems.raise_if_any()
