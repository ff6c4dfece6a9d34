"""Connecting: the mode of authentication is the cluster's, and what cannot be joined is refused at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.connect import connect
from foundation import RequestError

HOUSE = Path(__file__).parents[2]
LATE = """
import os, ray
from cluster import connect
from foundation import RequestError
connect._check_answers = lambda address: None
connect.authenticate = lambda address: os.environ["WANTED"]
try:
    connect.connect("127.0.0.1:1")
except RequestError as error:
    print(error)
"""
CLUSTER = """
import os
from ray.cluster_utils import Cluster
from cluster.connect import connect, disconnect, is_own_cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
before = len(cluster.list_all_nodes())
ray = connect(cluster.address)
print(len(ray.nodes()) == before, is_own_cluster(), os.environ["RAY_AUTH_MODE"])
disconnect()
cluster.shutdown()
"""


def test_rays_client_is_refused_with_what_to_give_instead() -> None:
    with pytest.raises(RequestError, match=r"Ray's client cannot run a search. Give the head's HOST:PORT"):
        connect("ray://head:10001")


def test_a_process_that_imported_ray_with_another_mode_is_told_so() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    script = [sys.executable, "-c", LATE]
    asked = environment | {"PYTHONPATH": str(HOUSE), "RAY_AUTH_MODE": "disabled", "WANTED": "token"}
    said = subprocess.run(script, env=asked, capture_output=True, text=True, timeout=100, check=True).stdout
    assert "RAY_AUTH_MODE is disabled, and Ray was imported before" in said
    assert "it needs RAY_AUTH_MODE=token in the environment from the start" in said


@pytest.mark.timeout(240)
def test_a_host_of_the_cluster_does_not_join_it_again() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    asked = environment | {"PYTHONPATH": str(HOUSE), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER], env=asked, capture_output=True, text=True, timeout=230, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "False", "disabled"]
