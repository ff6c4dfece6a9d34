"""A slot that grows while trials run, on a Ray cluster of two hosts: in a process of its own."""

from pathlib import Path

import pytest
from ray_script import said_by

from cluster.ledger import LEDGER, read_history, read_rows
from cluster.resources import Host, Slot

SCRIPT = """
import json, os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray.tune import Trainable
from cluster.connect import connect, disconnect
from cluster.dispatch import Dispatcher
from cluster.launch import launch
from cluster.ledger import Ledger
from cluster.proposal import Proposal
from cluster.resources import Host, Place, Slot

TRIALS, GB = 14, 10**9


class Sharing(Trainable):
    "Its first trial waits for two others on its host, and runs out of memory; those wait for that."

    def setup(self, config, folder=""):
        self.folder = Path(folder)
        self.host = ray.get_runtime_context().get_node_id()
        self.reset_config(config)

    def until(self, fulfilled):
        end = time.monotonic() + 120
        while not fulfilled():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)

    def reset_config(self, new_config):
        self.given, self.begun = json.loads(new_config["handed_out"]), False
        return True

    def step(self):
        attempt = {"attempt": self.given["attempt"]}
        if not self.begun:
            self.begun = True
            (self.folder / f"{self.host}-{self.given['trial']}").touch()
            started = {"kind": "started", "host": self.host, "pid": os.getpid(), "epochs": []}
            return {"report": json.dumps(started | attempt)}
        fell = self.folder / "fell"
        if len(list(self.folder.glob(f"{self.host}-*"))) >= 3 and self.given["attempt"] == 1 and not fell.exists():
            try:
                fell.touch(exist_ok=False)
                raise MemoryError("too little for three")
            except FileExistsError:
                pass
        if self.given["trial"] < 5:
            self.until(fell.exists)
        row = dict.fromkeys(("train_loss", "val_loss", "val_accuracy", "seconds"), 0.5) | {"epoch": 1}
        return {"report": json.dumps({"kind": "epoch", "epoch": row, **attempt})}


def next_work(history):
    work = {"epochs": 1, "schedule_epochs": 1}
    number = history.next_trial()
    return None if number >= TRIALS else Proposal("search", "cnn", {}, number, work, "random")


folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
for memory in (6 * GB, 3 * GB):
    cluster.add_node(num_cpus=3, memory=memory)
connect(cluster.address)
nodes = [node for node in ray.nodes() if node["Resources"].get("CPU")]
hosts = [Host(3, 0, node["Resources"]["memory"], name=node["NodeID"]) for node in nodes]
(folder / "experiment" / "trials").mkdir(parents=True)
with Ledger(folder / "experiment") as ledger:
    ledger.append("calibrated", slot={"cpus": 1, "gpus": 0.0, "memory": int(1.2 * GB)})
    dispatcher = Dispatcher(ledger, ("search",), next_work, lambda *_: None)
    place = Place(Slot(1, 0.0, int(1.2 * GB)), hosts)
    assert place.slots == 5, place.slots
    assert launch(Sharing, dispatcher, place, {"folder": str(folder)})
disconnect()
cluster.shutdown()
print(json.dumps({host.name: host.memory for host in hosts}))
"""


@pytest.mark.timeout(400)
def test_the_slot_grows_in_one_launch_and_every_host_holds_what_it_has_memory_for(tmp_path: Path) -> None:
    found = said_by(SCRIPT, tmp_path, str(tmp_path), seconds=390)
    hosts = [Host(3, 0, memory, name=name) for name, memory in found.items()]
    rows = list(read_rows(tmp_path / "experiment" / LEDGER))
    (growth,) = (row for row in rows if row["event"] == "slot_grown")
    before, after = Slot(**growth["before"]), Slot(**growth["slot"])
    (host,) = (host for host in hosts if host.name == growth["host"])
    assert (before.fit(host), after.fit(host)) == (3, 2)
    (lost,) = (row for row in rows if row["event"] == "lost")
    assert (lost["cause"], lost["charged"], lost["shared"]) == ("out_of_memory", False, True)
    history = read_history(tmp_path / "experiment")
    assert {record.status for record in history.trials.values()} == {"completed"}
    assert len(history.trials) == 14
    old = _most_at_once([row for row in rows if row["seq"] <= growth["seq"]])
    assert old[host.name] == 3
    assert all(number <= before.fit(each) for each in hosts for number in [old.get(each.name, 0)])
    of_old = {row["trial"] for row in rows if row["event"] == "proposed" and row["seq"] < growth["seq"]}
    of_old -= {lost["trial"]}  # the others were handed out with the slot as it was then
    new = _most_at_once([row for row in rows if row["seq"] > growth["seq"] and row.get("trial") not in of_old])
    assert all(new.get(each.name, 0) <= after.fit(each) for each in hosts)


def _most_at_once(rows: list[dict[str, object]]) -> dict[str, int]:
    """Return, for each host, how many trials ran there at a time at most."""
    running: dict[object, str] = {}
    most: dict[str, int] = {}
    for row in rows:
        if row["event"] == "started":
            running[row["trial"]] = host = str(row["host"])
            most[host] = max(most.get(host, 0), list(running.values()).count(host))
        elif row["event"] in ("ended", "lost"):
            running.pop(row["trial"], None)
    return most
