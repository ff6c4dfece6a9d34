"""What search and analysis share before they launch: what has changed since, the cluster, and room for trials."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.asking import room_comes
from cluster.connect import connect, is_own_cluster
from cluster.growth import Coming, coming
from cluster.ledger import Ledger
from cluster.marker import storage_problems
from cluster.record import Row
from cluster.resources import Host, Place, Slot, choose_slot, hosts_in_words, hosts_of
from cluster.shares import alone
from cluster.storage import read_experiment, versions, write_experiment
from foundation import RequestError, count, duration

Tell = Callable[[str], None]

FIRST_SECONDS = 20.0  # a host's first process takes some 5 s: until then nothing is said
ROOM_SECONDS = 1800.0  # a cloud's host with its packages comes within ten minutes
_said: set[str] = set()  # what this process has said: a search opens more than one session


def note_resumed(ledger: Ledger, experiment: Mapping[str, Any], tell: Tell) -> None:
    """Note in the ledger that another process goes on; tell the user which versions are no longer those of before."""
    resumes = ledger.history.resumes
    before, now = resumes[-1]["versions"] if resumes else experiment["versions"], versions()
    changed = [
        f"{name} was {before.get(name, 'not there')} and is {now.get(name, 'not there')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    ledger.append("resumed", versions=now, changed=changed)
    if changed:
        tell(f"Since this experiment last ran, {', '.join(changed)}: results may differ.")


def keep_address(folder: Path, address: str | None) -> None:
    """Note in `experiment.json` on which cluster an experiment runs from now on."""
    experiment = read_experiment(folder)
    if experiment["spec"]["address"] != address:
        write_experiment(folder, experiment | {"spec": experiment["spec"] | {"address": address}})


def open_session(
    spec: Mapping[str, Any], calibrated: Row | None, folder: Path | None = None, tell: Tell = lambda _: None
) -> Place:
    """Return the place of the trials on the cluster that the request names, connecting to it first.

    The slot is the one that was calibrated, with no more cores or memory than hosts have: one size per experiment. On a
    cluster of others it returns when a host has room for a trial. Raises `RequestError` when the cluster does not
    answer, can never hold a trial, has no device of the kind that was calibrated, has no room for a trial within
    `ROOM_SECONDS`, or has a host that does not reach the experiment's `folder`.
    """
    ray = connect(spec["address"])
    own = is_own_cluster()
    if folder and not own and (problems := storage_problems(folder)):
        raise RequestError(*problems)
    hosts, more = hosts_of(ray), Coming() if own else coming(ray)
    for missing in more.findings():
        if missing.said not in _said:
            _said.add(missing.said)
            tell(f"{missing.said}. Remedy: {missing.remedy}.")
    every = [*hosts, *more.hosts]
    if calibrated:
        slot = _as_calibrated(calibrated, every, more.unknown, tell)
    else:
        slot = choose_slot(every, spec["cpus_per_trial"], spec["gpus_per_trial"], others_may_come=more.unknown)
    if not own:
        _wait_for_room(slot, slot.how_many(hosts) > 0, tell)
        hosts = hosts_of(ray)
    grows = more.unknown or slot.how_many(more.hosts) > 0
    return Place(slot, hosts, spec["max_concurrent"], spec["epoch_timeout"], grows)


def _as_calibrated(calibrated: Row, hosts: Sequence[Host], others_may_come: bool, tell: Tell) -> Slot:
    """Return the slot that was calibrated; of a larger machine's, what these hosts have of it."""
    slot = Slot(**calibrated["slot"])
    kinds = {each["device"] for each in calibrated.get("settings", {}).values()}
    no_mps = "mps" in kinds and sys.platform != "darwin"
    if not no_mps and (others_may_come or slot.how_many(hosts)):
        return slot
    if no_mps or (hosts and all(host.gpus < min(slot.gpus, 1) for host in hosts)):
        kind = "Apple's GPU" if no_mps else "a GPU"
        raise RequestError(
            f"the trials of this experiment train on {kind} ({calibrated['device']}), and no host here has one: "
            f"{hosts_in_words(hosts) or 'none has joined'}. Go on with it where there is one, or begin another with "
            "--name"
        )
    able = [host for host in hosts if host.gpus >= slot.gpus]
    fewer = min(slot.cpus, max((int(host.cpus) for host in able), default=slot.cpus))
    if 0 < fewer < slot.cpus:
        tell(f"No host has {count(slot.cpus, 'core')} for a trial: each gets {fewer}, and figures may differ slightly.")
        slot = replace(slot, cpus=fewer)
    if slot.memory and not slot.how_many(hosts) and replace(slot, memory=0).how_many(hosts):
        slot = alone(slot, able)  # they have less memory than when it was measured
    return slot if slot.how_many(hosts) else choose_slot(hosts, slot.cpus, slot.gpus)  # which says why not


def _wait_for_room(slot: Slot, there: bool, tell: Tell) -> None:
    """Return when a host has room for a trial: where none is there, the autoscaler is asked for one by this."""
    what = f"{count(slot.cpus, 'core')} and {slot.gpus:g} GPUs" if slot.gpus else count(slot.cpus, "core")
    why = "are all taken by others" if there else "are not there yet"
    if room_comes(slot, FIRST_SECONDS):
        return
    tell(f"Hosts with {what} for a trial {why}: waiting for one, {duration(ROOM_SECONDS)} at most.")
    if not room_comes(slot, ROOM_SECONDS):
        raise RequestError(
            f"no host had {what} for a trial within {duration(ROOM_SECONDS)}: they {why}. `ray status` says what the "
            "autoscaler tried; lower --cpus-per-trial or --gpus-per-trial, or try again when there is room"
        )
