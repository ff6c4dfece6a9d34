"""Asking every host of a cluster: in a process of its own, since Ray must not be in this one."""

from pathlib import Path

import pytest
from ray_script import said_by

SCRIPT = """
import json, os, time
from ray.cluster_utils import Cluster
from cluster.connect import connect, disconnect, on_every_host

def look(number):
    if os.environ["ASKED"] == "fails":
        raise ValueError(f"no {number} here")
    if os.environ["ASKED"] == "hangs":
        time.sleep(1000)
    return number + 1

def ready():
    pass

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for asked in ("fails", "hangs"):
    cluster.add_node(num_cpus=1, env_vars={"ASKED": asked})
os.environ["ASKED"] = "answers"
connect(cluster.address)
on_every_host(ready, seconds=120)  # whatever the machine is busy with: all have a process now
found = on_every_host(look, 41, seconds=10)
disconnect()
cluster.shutdown()
print(json.dumps([f"{type(each).__name__}: {each}" for each in found.values()]))
"""


@pytest.mark.timeout(240)
def test_every_host_answers_or_says_why_it_does_not(tmp_path: Path) -> None:
    found = said_by(SCRIPT, tmp_path, seconds=230, ASKED="answers")
    assert sorted(found) == ["TimeoutError: no answer within 10 s", "ValueError: no 41 here", "int: 42"]
