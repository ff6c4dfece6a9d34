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


HELPERS = """
import json, os, time
from ray.cluster_utils import Cluster
from cluster import asking
from cluster.connect import connect, disconnect
from foundation import count

def refuses(number):
    raise ValueError(f"no {number} here")

def who():
    return os.getpid()

def busy():
    time.sleep(1000)

def helped(**options):
    return asking.helpers(cluster.address, **options)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
found = {}
with helped(most=4, at_once=2) as none:
    found["head alone"] = [each.name for each in none]
cluster.add_node(num_cpus=1)
cluster.add_node(num_cpus=2)
with helped(most=1, at_once=2) as most:
    found["most"] = [each.cores for each in most]
with helped(most=4, at_once=2) as hosts:
    [host, other] = hosts
    found["cores"] = [host.cores, other.cores]
    found["answers"] = [host.run(count, 1000, "image"), host.run(who) == host.run(who) != other.run(who)]
    try:
        host.run(refuses, 41)
    except ValueError as error:
        found["raises"] = str(error)
try:
    host.run(who)
except ConnectionError as error:
    found["gone"] = str(error)[:2000]
ray = connect(cluster.address)
until = time.monotonic() + 100
while ray.available_resources().get("CPU") != 4 and time.monotonic() < until:  # they are given back
    time.sleep(0.1)
found["given back"] = ray.available_resources().get("CPU")
taken = [ray.remote(num_cpus=2)(busy).remote(), ray.remote(num_cpus=1)(busy).remote()]
taken.append(ray.remote(num_cpus=1)(busy).remote())
while ray.available_resources().get("CPU", 0) and time.monotonic() < until:
    time.sleep(0.1)
with helped(most=4, at_once=2) as none:
    found["all taken"] = [each.name for each in none]
import ray._private.state as state
here = ray.get_runtime_context().get_node_id()
state.available_resources_per_node = lambda: {each["NodeID"]: {"CPU": 1.0} for each in ray.nodes()}  # a moment ago
asking.HOST_SECONDS = 1.0
with helped(most=1, at_once=2) as [late]:
    try:
        late.run(who)
    except ConnectionError as error:
        found["late"] = str(error)
disconnect()
cluster.shutdown()
print(json.dumps(found))
"""


@pytest.mark.timeout(300)
def test_helpers_are_the_other_hosts_with_cores_to_spare(tmp_path: Path) -> None:
    found = said_by(HELPERS, tmp_path, seconds=290)
    assert found == {
        "gone": "it has been let go",
        "head alone": [],
        "most": [2],
        "cores": [2, 1],
        "answers": ["1,000 images", True],
        "raises": "no 41 here",
        "given back": 4,
        "all taken": [],
        "late": "no process answered there within 1 s",
    }
