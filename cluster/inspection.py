"""What every host of a cluster has and lacks, asked before trials start: what would fail after an hour fails now."""

import hashlib
import importlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cluster.asking import listening
from cluster.connect import connect, is_own_cluster, on_every_host
from cluster.environment import environment_findings
from cluster.gpus import gpu_findings
from cluster.growth import coming
from cluster.marker import storage_problems
from cluster.resources import choose_slot, hosts_of
from cluster.storage import experiment_folder, versions
from foundation import Finding, RequestError, count

ANSWER_SECONDS = 120.0  # of a host that imports torch for the first time
REACH_SECONDS = 3.0
MODULES = ("trainables.trainable", "trainables.training")
ROOMS = ("spaces", "trainables", "cluster", "search", "analysis")
MUST_BE_EQUAL = ("python", "ray")
LEAST_FREE_BYTES = 100 * 10**6
FULL_SHARE = 0.95  # Ray writes no objects to a disk that is fuller
SHARED_MEMORY_SHARE = 0.1  # of the memory; Ray wants 0.3 of it and takes /tmp where /dev/shm has less
LEAST_MEMORY_BYTES = 2 * 10**9

Probe = Callable[[], Finding | None]  # one more thing to find out on a host; what it needs travels with it


def check_hosts(probes: Sequence[Probe], others: Sequence[str] = ()) -> None:
    """Raise `RequestError` with every problem of every host of the cluster, and its remedy; and all `others`.

    `others` are sentences that were found out elsewhere, such as of the storage. Nothing is asked on a cluster of our
    own: it is this machine, and the start would take longer.
    """
    problems = [] if is_own_cluster() else [sentence(*each) for each in inspected(probes) if each[1].state == "problem"]
    if problems or others:
        raise RequestError(*problems, *others)


def cluster_findings(address: str, storage: str, probes: Callable[[], Sequence[Probe]]) -> list[tuple[str, Finding]]:
    """Return what is found on the cluster at `address`: of each host, of its way to the storage, and whether there is
    room for trials.

    `probes` is called when it is connected. Raises `RequestError` when it does not answer.
    """
    ray = connect(address)
    hosts, more = hosts_of(ray), coming(ray)
    there = "; ".join(f"{host.cpus:g} cores, {host.gpus:g} GPUs" for host in hosts)
    said = f"{count(len(hosts), 'host')} ({there})"
    said += f", and {count(len(more.hosts), 'kind')} that may come" if more.hosts else ""
    try:
        choose_slot([*hosts, *more.hosts], others_may_come=more.unknown)
        room = Finding("room", "ok", said)
    except RequestError as error:
        room = Finding("room", "problem", str(error))
    found = [(address, each) for each in (room, *more.findings())] + inspected(probes())
    problems = storage_problems(experiment_folder(storage, "doctor"))
    found += [(address, Finding("storage", "problem", problem)) for problem in problems]
    return found if problems else [*found, (address, Finding("storage", "ok", f"every host reaches {storage}"))]


def sentence(host: str, finding: Finding) -> str:
    """Return a finding of a host as one sentence, with the remedy."""
    return f"host {host}: {finding.said}" + (f": {finding.remedy}" if finding.remedy else "")


def inspected(probes: Sequence[Probe]) -> list[tuple[str, Finding]]:
    """Return what was found on each host of the cluster, by its name; what a host does not answer is a problem too."""
    expected = versions() | {"code": code_digest()}
    answers = on_every_host(look, expected, list(probes), listening(), seconds=ANSWER_SECONDS)
    return [(name, each) for name, answer in answers.items() for each in _findings(answer)]


def _findings(answer: Any) -> list[Finding]:
    if isinstance(answer, list):
        return answer
    if isinstance(answer, ImportError):
        remedy = f"install the same convscout there, for Python {versions()['python']}"
        return [Finding("convscout", "problem", f"it cannot be imported there ({answer})", remedy)]
    remedy = "see that the host is well (`ray status`), or take it out of the cluster"
    return [Finding("answer", "problem", f"it could not be asked: {answer}", remedy)]


def look(expected: Mapping[str, str], probes: Sequence[Probe], others: Sequence[tuple[str, str, int]]) -> list[Finding]:
    """Return what this host has: `expected` are the versions that the driver has, `others` where hosts listen."""
    found = version_findings(expected) + import_findings(MODULES)
    found += environment_findings(os.environ, of_driver=False) + disk_findings() + memory_findings() + gpu_findings()
    found += reach_findings(others)
    for probe in probes:
        if each := probe():
            found.append(each)
    return found


def version_findings(expected: Mapping[str, str]) -> list[Finding]:
    """Return how this host's versions differ from those expected, of Ray and Python as a problem."""
    here = versions() | {"code": code_digest()}
    found = []
    for name, wanted in expected.items():
        has = here.get(name, "none")
        if has == wanted:
            continue
        if name == "code":
            said, remedy = "it runs other code of convscout than the driver", "install the same convscout there"
            found.append(Finding("versions", "problem", said, remedy))
        elif name in MUST_BE_EQUAL:
            remedy = f"install {name} {wanted} there, or start the search with {name} {has}"
            found.append(Finding("versions", "problem", f"it has {name} {has}, the driver {wanted}", remedy))
        else:
            remedy = f"install {name} {wanted} there"
            said = f"it has {name} {has}, the driver {wanted}: results may differ from host to host"
            found.append(Finding("versions", "warning", said, remedy))
    if not found:
        shown = ", ".join(f"{name} {version}" for name, version in here.items() if name != "code")
        found.append(Finding("versions", "ok", shown))
    return found


def code_digest() -> str:
    """Return the SHA-256 of convscout's own code as this process finds it, without its commands."""
    house = Path(__file__).parents[1]
    total = hashlib.sha256()
    for path in [house / "foundation.py", *(path for room in ROOMS for path in sorted((house / room).rglob("*.py")))]:
        total.update(f"{path.relative_to(house)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return total.hexdigest()


def import_findings(modules: Sequence[str]) -> list[Finding]:
    """Return whether what trials need can be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken package does
            said = f"{module} cannot be imported ({type(error).__name__}: {error})"
            return [Finding("convscout", "problem", said, "install convscout and its packages again")]
    return [Finding("convscout", "ok", f"can be imported, from {Path(__file__).parents[1]}")]


def disk_findings(folder: Path | None = None) -> list[Finding]:
    """Return how much room there is for what Ray keeps: its logs, and objects that memory has no room for."""
    root = folder or Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    usage = shutil.disk_usage(root)
    said = f"{usage.free / 1e9:.1f} GB free in {root}"
    if usage.free < LEAST_FREE_BYTES:
        return [
            Finding("disk", "problem", said, f"make room there, or set RAY_TMPDIR; {_mb(LEAST_FREE_BYTES)} at least")
        ]
    if usage.free < (1 - FULL_SHARE) * usage.total:
        said += f", it is more than {FULL_SHARE:.0%} full: Ray keeps nothing more there"
        return [Finding("disk", "warning", said, "make room there, or set RAY_TMPDIR")]
    return [Finding("disk", "ok", said)]


def memory_findings(shared: Path = Path("/dev/shm"), total_bytes: int | None = None) -> list[Finding]:
    """Return the memory there is, and the part of it that processes can share."""
    total = total_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = f"{total / 1e9:.1f} GB of memory"
    few = total < LEAST_MEMORY_BYTES
    remedy = "a worker takes 0.5 GB and more: fewer trials side by side (--max-concurrent)" if few else ""
    found = [Finding("memory", "warning" if few else "ok", said, remedy)]
    if not shared.is_dir():  # only Linux has it
        return found
    has = shutil.disk_usage(shared).free
    if has < SHARED_MEMORY_SHARE * total:
        said = f"{_mb(has)} free in {shared}: Ray shares objects through {tempfile.gettempdir()} then, slowly"
        return [*found, Finding("shared memory", "warning", said, "start the container with a larger --shm-size")]
    return [*found, Finding("shared memory", "ok", f"{has / 1e9:.1f} GB free in {shared}")]


def reach_findings(others: Sequence[tuple[str, str, int]]) -> list[Finding]:
    """Return whether this host reaches all others where they give out what trials need."""
    with ThreadPoolExecutor(32) as pool:
        errors = list(pool.map(partial(_cannot_reach), others))
    found = [
        Finding(
            "network",
            "problem",
            f"it does not reach host {name} at {address}:{port} ({error})",
            "open the cluster's network between its hosts: all ports, or those that `ray start` was given",
        )
        for (name, address, port), error in zip(others, errors, strict=True)
        if error
    ]
    return found or ([Finding("network", "ok", f"reaches all {len(others)} hosts")] if others else [])


def _cannot_reach(other: tuple[str, str, int]) -> str:
    _, address, port = other
    try:
        socket.create_connection((address, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _mb(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"
