"""What search and analysis share before they launch: the cluster, the slot, and how many of it fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.connect import connect
from cluster.history import Row
from cluster.resources import Slot, choose_slot, hosts_of


@dataclass(frozen=True)
class Session:
    """A connected cluster: the slot of every trial, and how many run side by side."""

    slot: Slot
    slots: int


def open_session(spec: Mapping[str, Any], calibrated: Row | None) -> Session:
    """Return a session on the cluster that the request names, connecting to it first.

    The slot is the one that was calibrated, where that still fits: one size per experiment. Raises `RequestError`
    when the cluster does not answer or can never hold a trial.
    """
    hosts = hosts_of(connect(spec["address"]))
    slot = Slot(**calibrated["slot"]) if calibrated else None
    if slot is None or slot.how_many(hosts) < 1:
        slot = choose_slot(hosts, spec["cpus_per_trial"], spec["gpus_per_trial"])
    return Session(slot, min(slot.how_many(hosts), spec["max_concurrent"] or 1_000_000))
