"""What a plan says of slots is what the search then uses: on two hosts, in a process of its own, as Ray needs one."""

from pathlib import Path

import pytest
from ray_script import said_by

SCRIPT = """
import json, os, signal, sys, threading, time
from dataclasses import asdict
from pathlib import Path
from ray.cluster_utils import Cluster
from cluster import inspection
from cluster.connect import disconnect
from cluster.ledger import read_history
from foundation import RequestError
from search import plan as planning, sharing
from search.pacing import Paces
from search.run import search
from search.spec import checked_spec
from trainables.footprint import Footprint

def measured_footprints(function, slot, found, *_):
    return {each.architecture: Footprint(10**9) for each in found}

def begun():
    try:
        return [record for record in read_history(folder).trials.values() if record.live and record.started]
    except RequestError:
        return []

def stop_when_all_slots_are_taken():
    while len(begun()) < planned.slots:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)

data, storage = sys.argv[1:]
folder = Path(storage) / "x"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=2, memory=1_500_000_000)
cluster.add_node(num_cpus=2, memory=2_600_000_000)
inspection.ANSWER_SECONDS = 400.0  # whatever the machine is busy with
sharing.run_in_slot = measured_footprints
planning.measured_paces = lambda *_: [Paces("cnn", (1.0,), 1, 0.0, 0.05)]
asked = {"data": data, "storage": storage, "name": "x", "cpus_per_trial": 1}
asked |= {"arch": ["cnn"], "trials": 9, "epochs": 100_000}
spec = checked_spec(asked | {"method": "random", "precision": "fp32", "address": cluster.address})
said = []
planned = planning.plan(spec, tell=said.append)
left = folder.exists()
threading.Thread(target=stop_when_all_slots_are_taken, daemon=True).start()
searched = []
outcome = search(spec, quiet=True, tell=searched.append)
history = read_history(folder)
disconnect()
cluster.shutdown()
print(json.dumps({
    "planned": [asdict(planned.slot), planned.slots], "left": left, "calibrated": history.calibrated["slot"],
    "interrupted": outcome.interrupted, "said": [said, searched],
    "begun": [row["node"] for record in history.trials.values() for row in record.started],
}))
"""


@pytest.mark.timeout(820)
def test_the_slots_of_a_plan_are_those_of_the_search(striped: Path, tmp_path: Path) -> None:
    found = said_by(
        SCRIPT, tmp_path, str(striped), str(tmp_path / "runs"), seconds=800, RAY_raylet_start_wait_time_s="200"
    )
    slot, slots = found["planned"]
    assert slots == 3  # cores for four, memory for one on one host and for two on the other
    assert slot == found["calibrated"]
    assert slot["cpus"] == 1
    assert slot["memory"] >= 1_100_000_000
    assert not found["left"]  # a plan begins nothing
    assert found["interrupted"]
    assert sorted(map(found["begun"].count, set(found["begun"]))) == [1, 2]
    sentences = [[each for each in said if "Memory:" in each] for said in found["said"]]
    assert sentences[0] == sentences[1]
    assert "so 3 and not 4 run side by side" in sentences[0][0]
