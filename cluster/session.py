"""What search and analysis share before they launch: what has changed since, the cluster, and room for trials."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.connect import connect, is_own_cluster
from cluster.ledger import Ledger
from cluster.marker import storage_problems
from cluster.record import Row
from cluster.resources import Place, Slot, choose_slot, hosts_of
from cluster.shares import alone
from cluster.storage import versions
from foundation import RequestError

Tell = Callable[[str], None]


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


def open_session(spec: Mapping[str, Any], calibrated: Row | None, folder: Path | None = None) -> Place:
    """Return the place of the trials on the cluster that the request names, connecting to it first.

    The slot is the one that was calibrated, where that still fits: one size per experiment. Raises `RequestError`
    when the cluster does not answer or can never hold a trial, or has a host that does not reach the experiment's
    `folder`; a cluster of our own is this host.
    """
    hosts = hosts_of(connect(spec["address"]))
    if folder and not is_own_cluster() and (problems := storage_problems(folder)):
        raise RequestError(*problems)
    slot = Slot(**calibrated["slot"]) if calibrated else None
    if slot and slot.memory and not slot.how_many(hosts) and replace(slot, memory=0).how_many(hosts):
        slot = alone(slot, hosts)  # hosts have less memory than when it was measured
    if slot is None or slot.how_many(hosts) < 1:
        slot = choose_slot(hosts, spec["cpus_per_trial"], spec["gpus_per_trial"])
    return Place(slot, hosts, spec["max_concurrent"], spec["epoch_timeout"])
