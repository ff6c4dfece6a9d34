"""A host that cannot get the images costs no trial anything: in a process of its own, since Ray must not be in this."""

from pathlib import Path
from typing import Any

import pytest
from promises import broken_promises
from ray_script import said_by

from cluster.ledger import read_history

SEARCH = """
import json, sys
from dataclasses import replace
from pathlib import Path
from ray.cluster_utils import Cluster
from cluster.connect import disconnect
from foundation import HaltError
from search import run
from search.spec import make_spec

work = Path(sys.argv[1])
(work / "file").touch()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
full = cluster.add_node(num_cpus=1, env_vars={"CONVSCOUT_CACHE": str(work / "file" / "no folder")})
run.check_hosts = lambda *_: None  # as if it came later
needs_of = run.needs_of

def unseen(*asked):  # the driver's folder, which lies on this machine too
    needs = needs_of(*asked)
    return replace(needs, images=replace(needs.images, folder="/not/there/0123"))

run.needs_of = unseen

def search(name, epochs):
    asked = {"data": "digits", "arch": ("cnn",), "method": "random", "trials": 3, "epochs": epochs, "precision": "fp32"}
    asked |= {"space": str(work / "space.yaml"), "storage": str(work / "runs"), "name": name}
    try:
        run.search(make_spec(asked | {"address": cluster.address}), quiet=True)
        return "done"
    except HaltError as error:
        return str(error)
    finally:
        disconnect()

said = {"alone": search("alone", 1)}
cluster.add_node(num_cpus=1)
said["beside"] = search("beside", 100)  # a trial takes longer than a worker to start on the unfit host
said["full"] = full.node_id
cluster.shutdown()
print(json.dumps(said))
"""
SPACE = "batch_size: 64\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"


@pytest.mark.timeout(520)
def test_trials_go_to_other_hosts_and_the_search_stops_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    said: dict[str, str] = said_by(
        SEARCH, tmp_path, str(tmp_path), seconds=500, CONVSCOUT_CACHE=str(tmp_path / "driver")
    )
    why = f"the images could not be fetched into '{tmp_path}/file/no folder/sent' (Not a directory)"
    assert said["alone"].startswith("no other host has room for a trial, and host ")
    assert why in said["alone"]
    assert "set CONVSCOUT_CACHE on that host" in said["alone"]
    alone = read_history(tmp_path / "runs" / "alone")
    assert {record.status for record in alone.trials.values()} == {None}  # a resume trains them
    assert {(row["cause"], row["charged"]) for row in lost(alone)} <= {("unfit", False), ("retired", False)}
    assert said["beside"] == "done"
    assert broken_promises(tmp_path / "runs" / "beside") == []
    beside = read_history(tmp_path / "runs" / "beside")
    assert {record.status for record in beside.trials.values()} == {"completed"}
    assert any(why in row["error"] for row in lost(beside))
    assert said["full"] not in {row["node"] for record in beside.trials.values() for row in record.started}


def lost(history: Any) -> list[dict[str, Any]]:
    return [row for record in history.trials.values() for row in record.lost]
