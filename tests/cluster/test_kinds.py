"""Measuring on a host with a certain kind of GPU, in processes of a Ray worker: in a process of its own. No GPU is
needed: Ray believes what it is told a host has."""

from pathlib import Path

import pytest
from ray_script import said_by

SCRIPT = """
import json
import ray
from ray.cluster_utils import Cluster
import spaces
from cluster.connect import connect, disconnect, run_on_kind
from cluster.resources import Slot, choose_slot, hosts_of
from trainables.samples import Sample
from trainables.side_by_side import measure_rates
from trainables.settings import Settings

def where():
    return [ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()]

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for kind in ("T4", "H100"):
        cluster.add_node(num_cpus=2, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
    connect(cluster.address)
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    hosts = [host for host in hosts_of(ray) if host.gpus]
    slot = choose_slot(hosts)
    found = {kind: run_on_kind(where, kind, slot) for kind in ("T4", "H100")}
    right = [f"accelerator_type:{kind}" in nodes[node] for kind, (node, _) in found.items()]
    knobs = {"filters": 8, "depth": 1, "dense_units": 8, "batch_size": 4}
    sample = Sample("cnn", spaces.load("cnn").baseline | knobs)
    counts = {"counts": [1, 2], "gain_needed": 0.0, "cores": 2, "seconds": 0.2}
    rates = run_on_kind(measure_rates, "T4", slot, [sample], {"cnn": Settings()}, (3, 28, 28), 2, **counts)
    disconnect()
    cluster.shutdown()
    print(json.dumps([sorted(host.kind for host in hosts), slot.to_json(), right, sorted(rates)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_each_kind_of_gpu_is_measured_on_a_host_that_has_it(tmp_path: Path) -> None:
    kinds, slot, right, counts = said_by(SCRIPT, tmp_path, seconds=390)
    assert kinds == ["H100", "T4"]
    assert slot == {"cpus": 2, "gpus": 1.0, "memory": 0}
    assert right == [True, True]
    assert counts == [1, 2]  # two processes side by side, started by a worker of Ray's
