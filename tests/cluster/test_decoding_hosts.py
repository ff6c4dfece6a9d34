"""Hosts of a real cluster decode a part: in a process of its own, since Ray must not be in this one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_script import said_by

# What makes a host see another folder under the name of DATA; Python imports it first in every process there.
SEEING = """
import os

real_open, real_stat = os.open, os.stat

def named(path):
    return path.replace(os.environ["HERE"], os.environ["THERE"]) if isinstance(path, str) else path

os.open = lambda path, *arguments, **options: real_open(named(path), *arguments, **options)
os.stat = lambda path, *arguments, **options: real_stat(named(path), *arguments, **options)
"""
COMMON = """
import json, os, sys, threading, time
from functools import partial
from pathlib import Path
from ray.cluster_utils import Cluster
from cluster.asking import helpers
from cluster.connect import disconnect
from trainables import decoding, orders
from trainables.cache import prepare
from trainables.shared_out import AT_ONCE, MOST_HOSTS, Helpers, Work

work, data, house = Path(sys.argv[1]), sys.argv[2], os.getcwd()
orders.PIXEL_BYTES = 28 * 28 * 3 * 10
told, heard, unable, changed = [], set(), set(), threading.Condition()
take, give_out, done, not_done = Work.take, Work.give_out, Work.done, Work.not_done

def note(name):
    with changed:
        heard.add(name)
        changed.notify_all()

def noted_done(self, rows, results, by=""):
    done(self, rows, results, by)
    note(by)

def noted_not_done(self, by, reason):
    not_done(self, by, reason)
    unable.add(by)
    note(by)

def wait(condition):
    with changed:
        assert changed.wait_for(condition, 150), heard

Work.done, Work.not_done = noted_done, noted_not_done

def made(name, address=None):
    os.environ["CONVSCOUT_CACHE"] = str(work / name)
    hosts = partial(helpers, address, most=MOST_HOSTS, at_once=AT_ONCE)
    return prepare(data, image_size=28, helpers=Helpers(hosts, told.append) if address else None)

def content(cache):
    files = {path.name: path.read_bytes() for path in cache.folder.iterdir() if path.name != "manifest.json"}
    return files | {key: value for key, value in cache.manifest.items() if key != "created"}

def add(name, **environment):
    own = {"CONVSCOUT_CACHE": str(work / ("of_" + name)), "TMPDIR": str(work / ("tmp_" + name)), **environment}
    os.mkdir(own["TMPDIR"])
    return cluster.add_node(num_cpus=1, env_vars=own)

alone = made("alone")
decoding.SHARED_SECONDS = 0.0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
"""
TOGETHER = (
    COMMON
    + """
nobody = made("nobody", cluster.address)
told_of_nobody = list(told)
add("sees")
seeing = {"PYTHONPATH": os.pathsep.join([str(work / "seeing"), house]), "HERE": data}
add("lacks", THERE=str(work / "nowhere"), **seeing)
add("differs", THERE=str(work / "other"), **seeing)
Work.take = lambda self, most: (wait(lambda: len(heard - {""}) == 3), take(self, most))[1]
# The one that can help is not to be done before the other two have said why they cannot.
Work.give_out = lambda self, most: (wait(lambda: len(unable) == 2), give_out(self, most))[1]
began = time.monotonic()
three = made("three", cluster.address)
seconds = time.monotonic() - began
decoding.SHARED_SECONDS = 10.0
small = made("small", "127.0.0.1:1")  # where nothing listens: it is not asked
import ray
free = {}
for _ in range(600):  # cores come back when the processes there have ended
    free = ray.available_resources()
    if free.get("CPU") == 3:
        break
    time.sleep(0.1)
disconnect()
cluster.shutdown()
left = [str(path) for name in ("sees", "lacks", "differs") for path in (work / ("of_" + name)).glob("**/*")]
left += [str(path) for name in ("sees", "lacks", "differs") for path in (work / ("tmp_" + name)).glob("*.png")]
print(json.dumps({
    "equal": [content(each) == content(alone) for each in (nobody, three, small)], "told": told, "left": left,
    "fingerprints": [each.fingerprint for each in (alone, nobody, three, small)], "free": free.get("CPU"),
    "told_of_nobody": told_of_nobody, "seconds": seconds,
}))
"""
)
KILLED = (
    COMMON
    + """
counts = work / "counts"
counts.mkdir()
fault = {"CONVSCOUT_FAULT": "cache.image:hang:40", "CONVSCOUT_FAULT_COUNTS": str(counts)}
mortal = add("mortal", **fault)
gone = threading.Event()

def kill():
    while not (counts / "cache.image").exists() or (counts / "cache.image").stat().st_size < 40:
        time.sleep(0.05)
    cluster.remove_node(mortal, allow_graceful=False)
    gone.set()

threading.Thread(target=kill, daemon=True).start()
Work.take = lambda self, most: (gone.wait(150), take(self, most))[1]
made_then = made("killed", cluster.address)
killed = gone.is_set()
disconnect()
cluster.shutdown()
print(json.dumps({"equal": content(made_then) == content(alone), "killed": killed, "told": told}))
"""
)


@pytest.fixture
def run(striped: Path, tmp_path: Path) -> Callable[[str], Any]:
    """Return what runs a script on a copy of the images and gives what it says."""
    data = tmp_path / "data"
    shutil.copytree(striped, data)

    def ran(script: str) -> Any:
        return said_by(script, tmp_path, str(tmp_path), str(data), seconds=280)

    return ran


@pytest.mark.timeout(300)
def test_three_hosts_make_the_cache_that_one_makes(run: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "seeing").mkdir()
    (tmp_path / "seeing" / "sitecustomize.py").write_text(SEEING, encoding="utf-8")
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    different = tmp_path / "other" / "class2" / "032.png"
    content = bytearray(different.read_bytes())
    content[60] ^= 1
    different.write_bytes(content)
    found = run(TOGETHER)
    assert found["equal"] == [True, True, True]
    assert len(set(found["fingerprints"])) == 1
    assert found["told_of_nobody"] == []
    said = " ".join(found["told"])
    assert " were decoded, the others on this one." in found["told"][0]
    assert f"({tmp_path / 'data'}/class0/000.png: No such file or directory)" in said
    assert "class2/032.png: it holds other bytes there, as many as here)" in said
    assert len(found["told"]) == 3
    assert found["left"] == []
    assert found["free"] == 3


@pytest.mark.timeout(300)
def test_a_host_that_is_killed_in_the_middle_loses_nothing(run: Callable[[str], Any]) -> None:
    found = run(KILLED)
    assert found["killed"]
    assert found["equal"]
