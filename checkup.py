"""The command that says what would go wrong here before it does; the front door lists it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import options
import terminal

if TYPE_CHECKING:
    from foundation import Finding

HERE = "this machine"
SHOWN = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


def doctor(
    data: options.DataToCheck = None,
    storage: options.Storage = "runs",
    address: options.Address = None,
    cluster: options.ClusterFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what would go wrong here, or on a cluster, before it does; exit with 2 if a search would fail."""
    from cluster.machine import machine_findings

    rows = [(HERE, each) for each in machine_findings(storage)]
    rows += [(HERE, each) for each in _data(data)]
    rows += [(str(cluster), each) for each in _file(cluster)]
    if address:
        rows += _cluster(address, storage, data)
    if as_json:
        print(json.dumps([{"host": host, **asdict(each)} for host, each in rows], indent=1))
    else:
        for host, each in rows:
            terminal.say(line(host, each))
    if any(each.state == "problem" for _, each in rows):
        raise typer.Exit(2)


def line(host: str, finding: "Finding") -> str:
    """Return a finding as one line, with the remedy behind it."""
    remedy = f". Remedy: {finding.remedy}" if finding.remedy else ""
    return f"{SHOWN[finding.state]:8}{host}: {finding.what}: {finding.said}{remedy}".replace("\n", " ")


def _data(data: str | None) -> "list[Finding]":
    if data is None:
        return []
    from foundation import Finding, RequestError
    from trainables.data_check import data_finding

    try:
        return [data_finding(data)]
    except RequestError as error:
        return [Finding("data", "problem", problem) for problem in error.problems]


def _file(cluster: Path | None) -> "list[Finding]":
    if cluster is None:
        return []
    from cluster.yaml_check import checked_cluster_file
    from foundation import Finding, RequestError

    try:
        checked_cluster_file(cluster)
    except RequestError as error:
        return [Finding("cluster file", "problem", problem) for problem in error.problems]
    return [Finding("cluster file", "ok", "fits Ray's schema, and Ray takes it")]


def _cluster(address: str, storage: str, data: str | None) -> "list[tuple[str, Finding]]":
    from cluster.connect import disconnect
    from cluster.inspection import cluster_findings
    from foundation import Finding, RequestError

    try:
        return cluster_findings(address, storage, lambda: _probes(data))
    except RequestError as error:
        return [(address, Finding("cluster", "problem", problem)) for problem in error.problems]
    finally:
        disconnect()


def _probes(data: str | None) -> list[Any]:
    """Return what is to be found out of DATA on every host, once it has been decoded here."""
    from cluster.place import parcel
    from foundation import RequestError
    from trainables.data_check import cache_of
    from trainables.learned import needs

    try:
        cache = cache_of(data) if data else None
    except RequestError:  # has been said
        cache = None
    return needs(cache.folder, {}, {}, parcel).probes() if cache else []
