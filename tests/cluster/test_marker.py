"""Whether each host of a cluster reaches the storage; with Ray in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_script import said_by

from cluster import marker
from cluster.marker import storage_problems
from cluster.remote import mirror_folder

SCRIPT = """
import json, os, sys
from ray.cluster_utils import Cluster
from cluster.connect import connect, disconnect, on_every_host
from cluster.session import open_session
from cluster.storage import experiment_folder
from foundation import RequestError

def ready():
    pass

folder = experiment_folder(sys.argv[1], "digits")
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
bad = cluster.add_node(num_cpus=1, env_vars={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
connect(cluster.address)
on_every_host(ready, seconds=200)  # whatever the machine is busy with: all have a process now
spec = {"address": cluster.address, "cpus_per_trial": 1, "gpus_per_trial": None, "max_concurrent": None}
try:
    open_session({**spec, "epoch_timeout": None}, None, folder)
    said = []
except RequestError as error:
    said = list(error.problems)
cluster.remove_node(bad)
slots = open_session({**spec, "epoch_timeout": None}, None, folder).slots
disconnect()
cluster.shutdown()
print(json.dumps([said, slots]))
"""


@pytest.mark.timeout(420)
def test_a_host_that_does_not_reach_the_store_is_named_before_trials_start(s3: str, tmp_path: Path) -> None:
    problems, slots = said_by(SCRIPT, tmp_path, s3, seconds=400)
    assert len(problems) == 1
    assert "Could not connect to the endpoint URL" in problems[0]
    assert f"the storage {s3}/digits cannot be used" in problems[0]
    assert slots == 1


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    """Return the hosts of a cluster that is not there, each with what it does in place of the function asked for."""
    found: dict[str, Callable[..., Any]] = {"good": marker.mark}

    def ask(function: object, *arguments: Any, seconds: float) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for host, work in found.items():
            try:
                answers[host] = work(*arguments)
            except Exception as error:
                answers[host] = error
        return answers

    monkeypatch.setattr(marker, "on_every_host", ask)
    return found


def raising(error: Exception) -> Callable[..., Any]:
    def work(*_: object) -> None:
        raise error

    return work


def test_hosts_that_share_the_folder_have_no_problem_and_leave_nothing(hosts: dict[str, Any], tmp_path: Path) -> None:
    hosts["also good"] = marker.mark
    assert storage_problems(tmp_path / "runs" / "digits") == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    assert storage_problems(tmp_path / "runs" / "digits") == []
    assert list((tmp_path / "runs" / "digits").iterdir()) == []


def test_each_host_that_lacks_the_folder_is_told_what_helps(hosts: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "digits"

    def has_its_own(place: str, token: str) -> str:
        own = tmp_path / "own" / Path(place).name
        own.mkdir(parents=True)
        (own / "driver").write_text("of another search")
        return marker.mark(str(own), token)

    hosts["without"] = lambda place, token: marker.mark(f"{place}-elsewhere", token)
    hosts["its own"] = has_its_own
    hosts["lost"] = lambda place, token: "host-nobody"  # what it wrote is not here
    hosts["may not"] = raising(PermissionError(13, "Permission denied"))
    hosts["hangs"] = raising(TimeoutError("no answer within 60 s"))
    hosts["old"] = raising(ModuleNotFoundError("No module named 'cluster.marker'"))
    problems = dict(problem.split(": ", 1) for problem in storage_problems(folder))
    assert set(problems) == {"without", "its own", "lost", "may not", "hangs", "old"}
    for host in ("without", "its own"):
        assert problems[host] == (
            f"it does not have the folder {folder} of this host: trials there could not keep anything. Mount the same "
            "folder on every host at the same path (NFS), or give --storage s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
        )
    assert problems["lost"] == f"what it wrote to {folder} is not to be seen here: give a storage that all hosts share"
    assert f"{folder} cannot be written (Permission denied): let the user that Ray runs as write" in problems["may not"]
    assert "is not known: no answer within 60 s. Is that host well" in problems["hangs"]
    assert "could not be tried there: ModuleNotFoundError: No module named" in problems["old"]


def test_a_host_with_another_store_of_that_name_is_told_so(hosts: dict[str, Any], s3: str) -> None:
    hosts["elsewhere"] = lambda place, token: marker.mark(f"{place}-elsewhere", token)
    problems = storage_problems(mirror_folder(s3) / "digits")
    assert problems == [
        f"elsewhere: it reads {s3}/digits, and does not find there what this process wrote: "
        "does AWS_ENDPOINT_URL differ?"
    ]
    hosts["elsewhere"] = marker.mark
    assert storage_problems(mirror_folder(s3) / "digits") == []


def test_a_storage_that_cannot_be_written_here_is_said_of_this_host(hosts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (problem,) = storage_problems(tmp_path / "file" / "digits")
    assert f"the storage {tmp_path}/file/digits cannot be written (Not a directory)" in problem
