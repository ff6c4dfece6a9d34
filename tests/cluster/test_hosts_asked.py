"""Asking every host of a cluster: in a process of its own, since Ray must not be in this one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]), "ASKED": "answers"},
    )
    assert done.returncode == 0, done.stderr
    answers = sorted(json.loads(done.stdout.splitlines()[-1]))
    assert answers == ["TimeoutError: no answer within 10 s", "ValueError: no 41 here", "int: 42"]
