"""What every room stands on: mistakes a user can act on, whole-or-nothing files, and seeds made from names.

The rooms downstairs may not import one another, yet all of them refuse requests and write files. This module
imports nothing but the standard library at its top, so that `convscout --help` stays fast.
"""

import difflib
import errno
import glob
import hashlib
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_YAML_DEPTH = 100
MOST_YAML_BYTES = 1_000_000


class RequestError(Exception):
    """What was asked cannot be done; each problem says what was found, what is allowed, and the remedy.

    The command line prints every problem and exits with code 2. Anything else that is raised is our fault, not
    the user's.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class HaltError(Exception):
    """The work cannot go on now, though what was asked is right: a full disk, a machine on which every trial fails.

    The command line prints the one sentence and exits with code 1.
    """


class Problems:
    """Collects every mistake in a request, so that the user sees them all at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        """Note one mistake."""
        self.found.append(problem)

    def raise_if_any(self) -> None:
        """Raise one `RequestError` with all mistakes noted so far, or do nothing when there are none."""
        if self.found:
            raise RequestError(*self.found)


@dataclass(frozen=True)
class Finding:
    """What was found of one thing on a host: "ok", "warning" or "problem", in words, and the remedy.

    A search fails with a problem, and may not do what was meant with a warning.
    """

    what: str
    state: str
    said: str
    remedy: str = ""


def unknown_word(kind: str, word: str, allowed: Iterable[str]) -> str:
    """Return the sentence for a word that is not among the allowed ones, with the closest valid one first."""
    options = sorted(allowed)
    close = difflib.get_close_matches(word.lower(), options, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{kind} {word!r} is not known: {hint}allowed are {', '.join(options)}"


def duration(seconds: float) -> str:
    """Return a number of seconds as text, in the one or two units that matter: `42 s`, `4 min`, `2 h 05 min`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def seed_from(*parts: object) -> int:
    """Return a seed in 0..2**31-1 that depends on every part and on nothing else, in any process on any host."""
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def cache_root() -> Path:
    """Return the folder of everything that can be made again: $CONVSCOUT_CACHE, else ~/.cache/convscout."""
    return Path(os.environ.get("CONVSCOUT_CACHE") or "~/.cache/convscout").expanduser().absolute()


def printable(text: str) -> str:
    """Return the text without the characters that control a terminal; each becomes a visible replacement."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def cell(value: object) -> object:
    """Return a value as a CSV may hold it: a text that a spreadsheet would run as a formula gets an apostrophe."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def fault(point: str) -> None:
    """Do here what a test asks for through the environment; nothing in ordinary use.

    `CONVSCOUT_FAULT` holds `POINT:ACTION:N`, several of them separated by commas: the Nth time that `point` is
    passed, the process kills itself (`kill`), hangs (`hang`), is stopped (`stop`), or meets a full disk (`full`), too
    little memory (`memory`) or an error (`error`). Passes are counted over all processes in the folder
    `CONVSCOUT_FAULT_COUNTS`.
    """
    asked = os.environ.get("CONVSCOUT_FAULT")
    if not asked:
        return
    with open(Path(os.environ["CONVSCOUT_FAULT_COUNTS"]) / point, "ab") as passes:
        passes.write(b".")
        passes.flush()
        number = passes.tell()
    for where, action, nth in (each.split(":") for each in asked.split(",")):
        if where == point and int(nth) == number:
            _do_fault(action, point)


def _do_fault(action: str, point: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            threading.Event().wait()
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point)
        case "memory":
            raise MemoryError(f"fault at {point}")
        case "error":
            raise RuntimeError(f"fault at {point}")
        case _:
            actions = ("kill", "hang", "stop", "full", "memory", "error")
            raise ValueError(unknown_word("CONVSCOUT_FAULT", action, actions))


def count(number: int, noun: str) -> str:
    """Return "1 run", "3 runs", "1,000 images"; the noun is given in the singular."""
    plural = noun if number == 1 else noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {plural}"


def read_yaml(path: Path, option: str) -> dict[Any, Any]:
    """Return the mapping that a YAML file holds; nothing in it can run code, or grow when it is read.

    `option` begins the messages. Raises `RequestError` for a file that cannot be read, is no YAML or no mapping, has
    a key twice in one mapping, which YAML would silently take the last of, or aliases, which can nest a few lines
    into gigabytes.
    """
    import yaml

    where = f"{option} {path}"
    try:
        if path.stat().st_size > MOST_YAML_BYTES:
            raise RequestError(f"{where} has {path.stat().st_size:,} bytes: at most {MOST_YAML_BYTES:,} are read")
        source = path.read_text(encoding="utf-8")
        depth = 0
        for token in yaml.scan(source):
            if isinstance(token, yaml.AliasToken):
                line = token.start_mark.line + 1
                raise RequestError(f"{where}, line {line}: aliases (*name) are not read: write it out")
            depth += isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken)
            depth -= isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken)
            if depth > MOST_YAML_DEPTH:  # 100,000 brackets took 87 s to end in a RecursionError
                raise RecursionError
        content = yaml.safe_load(source)
        doubles = _doubles(yaml.compose(source, Loader=yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise RequestError(f"{where} cannot be read: {error}") from None
    except RecursionError:
        raise RequestError(f"{where} cannot be read: it is nested too deeply") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise RequestError(f"{where} holds {found}: lines like `name: value` are needed")
    if doubles:
        raise RequestError(*(f"{where}: {key} is there twice, again in line {line}" for key, line in doubles))
    return content


def _doubles(node: Any) -> list[tuple[str, int]]:
    """Return the keys that a mapping holds twice, and their lines."""
    if not hasattr(node, "value") or not isinstance(node.value, list):
        return []
    found, seen = [], set()
    for item in node.value:
        key, value = item if isinstance(item, tuple) else (None, item)
        if key is not None:
            if key.value in seen:
                found.append((str(key.value), key.start_mark.line + 1))
            seen.add(key.value if isinstance(key.value, str) else None)
        found += _doubles(value)
    return found


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary file path next to `path`; on a clean exit it is synced to disk and renamed into place.

    A reader sees the old file or the new one, never a part; a crash leaves the old one.
    """
    beside = _beside(path)
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def folder_written_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; on a clean exit it takes the place of whatever was at `path`."""
    beside = _beside(path)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        for file in beside.iterdir():
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        fault("folder.before_rename")
        try:
            os.rename(beside, path)
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(path)
            os.rename(beside, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def this_host() -> str:
    """Return a name that no other host has: machines made from one image may share their host name, and containers of
    one machine have process ids of their own."""
    known = []
    with suppress(OSError):  # there is no /proc
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        known.append(os.readlink("/proc/self/ns/pid"))
    return f"{socket.gethostname()}-{hashlib.sha256(''.join(known).encode()).hexdigest()[:8]}"


def _beside(path: Path) -> Path:
    """Return where this process writes what is to become `path`; what a dead process of this host left is removed."""
    start = f".{path.name}.{this_host()}."
    for left in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        pid = left.name.removeprefix(start).removesuffix(".tmp")
        if pid.isdigit() and not lives(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}.tmp")


def lives(pid: int) -> bool:
    """Whether a process of this host is alive; one that nobody has waited for is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    try:  # where no one waits for it, a dead one keeps its number
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:  # there is no /proc
        return True


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, whole or not at all; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with written_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
