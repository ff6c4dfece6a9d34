"""Hosts of a cluster that lack something: in a process of its own, since Ray must not be in this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ray_script import said_by

HOUSE = Path(__file__).parents[2]
FETCH = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from ray.cluster_utils import Cluster
from cluster.connect import connect, disconnect
from cluster.place import PIECE_BYTES, parcel
from trainables.cache import open_learned
from trainables.learned import needs

work, made = Path(sys.argv[1]), Path(sys.argv[2])

def here(images):
    cache = images.here()
    pixels, labels = cache.arrays()
    return {"files": sorted(os.listdir(cache.folder)), "folder": str(cache.folder), "sum": int(pixels.sum()),
            "labels": labels.tolist()[:9], "pieces": images.sender.total_bytes / PIECE_BYTES}

def on(host, function, *arguments):
    return ray.get(ray.remote(num_cpus=1, resources={host: 1})(function).remote(*arguments), timeout=200)

def failure(images):
    try:
        return here(images)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=1, resources={"a": 1}, env_vars={"CONVSCOUT_CACHE": str(work / "a")})
ray = connect(cluster.address)
images = needs(made, {}, {}, parcel).images
unseen = replace(images, folder="/not/on/that/host/" + made.name)
found = {"pixels": int(open_learned(made).arrays()[0].sum()), "a": on("a", here, unseen)}
cluster.add_node(num_cpus=1, resources={"late": 1}, env_vars={"CONVSCOUT_CACHE": str(work / "late")})
found["late"] = on("late", here, unseen)
again = replace(unseen, sender=parcel(made, list(images.sender.sizes)))  # which has given out nothing yet
with open(made / "images.npy", "r+b") as file:  # somebody changes it meanwhile
    file.seek(-1, 2)
    file.write(b"\\x07")
(work / "late" / "sent").rename(work / "late" / "gone")
found["changed"] = on("late", failure, again)
os.truncate(made / "images.npy", 1000)
shorter = replace(again, sender=parcel(made, ["labels.npy"]))
shorter.sender.sizes["images.npy"] = again.sender.sizes["images.npy"]
found["shorter"] = on("late", failure, shorter)
found["left"] = sorted(path.name for path in (work / "late" / "sent").iterdir() if path.is_dir())
disconnect()
cluster.shutdown()
print(json.dumps(found))
"""
LACKING = """
import json, os, subprocess, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from cluster.connect import connect, disconnect
from cluster.inspection import check_hosts, inspected
from foundation import RequestError

work, house = Path(sys.argv[1]), os.getcwd()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(work / "other"), "CONVSCOUT_FAULT": "x:kill:1"})
cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(work / "broken")})
convscout = lambda *arguments: subprocess.run(
    [sys.executable, "-c", "import convscout; convscout.main()", *arguments, "--address", cluster.address,
     "--storage", str(work / "runs")],
    capture_output=True, text=True, timeout=250, cwd=work)  # Ray has workers look where the driver's script is
searched = convscout("search", "digits", "--arch", "cnn", "--trials", "1", "--epochs", "1", "--quiet")
doctor = convscout("doctor", "digits", "--json")
cluster.shutdown()
print(json.dumps({
    "search": [searched.returncode, searched.stderr], "doctor": [doctor.returncode, doctor.stdout, doctor.stderr],
    "runs": [str(path) for path in (work / "runs").glob("*")],
}))
"""


def ran(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = said_by(script, folder, *arguments, seconds=500, CONVSCOUT_CACHE=str(folder / "driver"))
    return found


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a cache of more than one piece: 40 MB of noise, and a test image."""
    import numpy as np

    from foundation import write_json

    folder = tmp_path / "driver" / "0123456789abcdef"
    folder.mkdir(parents=True)
    rng, count = np.random.default_rng(0), 13_200
    for prefix, number in (("", count), ("test_", 1)):
        np.save(folder / f"{prefix}images.npy", rng.integers(0, 256, (number, 32, 32, 3), np.uint8))
        np.save(folder / f"{prefix}labels.npy", np.arange(number) % 2)
        write_json(folder / f"{prefix}paths.json", [f"{index}.png" for index in range(number)])
    np.save(folder / "split.npy", (np.arange(count) < 100).astype(np.uint8))
    np.save(folder / "groups.npy", np.arange(count))
    counts = {"train": {"a": 6550, "b": 6550}, "val": {"a": 50, "b": 50}, "test": {"a": 1, "b": 0}}
    manifest = {"data": "x", "classes": ["a", "b"], "image_shape": [3, 32, 32], "counts": counts, "fingerprint": "f"}
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.mark.timeout(520)
def test_hosts_fetch_the_images_whenever_they_come_and_find_out_what_is_wrong(large: Path, tmp_path: Path) -> None:
    found = ran(FETCH, tmp_path, str(tmp_path), str(large))
    for host in ("a", "late"):
        there = found[host]
        assert there["sum"] == found["pixels"]
        assert there["labels"] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
        assert there["folder"].startswith(str(tmp_path / host))
        assert not [name for name in there["files"] if name.startswith("test_")]
        assert there["pieces"] > 1
    for wrong, said in (("changed", "what came is not what was sent"), ("shorter", "has become shorter")):
        assert found[wrong].startswith("RequestError: host ")
        assert said in found[wrong], found[wrong]
    assert found["left"] == []


@pytest.mark.timeout(520)
def test_a_host_with_other_code_or_none_stops_a_search_before_it_begins(tmp_path: Path) -> None:
    for name in ("other", "broken"):
        for room in ("spaces", "trainables", "cluster", "search", "analysis"):
            shutil.copytree(HOUSE / room, tmp_path / name / room, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HOUSE / "foundation.py", tmp_path / name)
    with (tmp_path / "other" / "trainables" / "optim.py").open("a", encoding="utf-8") as file:
        file.write("# one more line\n")
    (tmp_path / "broken" / "cluster" / "inspection.py").unlink()
    (tmp_path / "broken" / "cluster" / "inspection").mkdir()  # else the installed package would be found
    found = ran(LACKING, tmp_path, str(tmp_path))
    code, said = found["search"]
    assert code == 2, said
    problems = [line for line in said.splitlines() if line.startswith("error: ")]
    assert any("runs other code of convscout than the driver: install the same" in p for p in problems), said
    assert any("cannot be imported there" in p or "could not be asked" in p for p in problems), said
    assert all(p.startswith("error: host ") for p in problems), said
    assert found["runs"] == []
    code, rows, said = found["doctor"]
    assert code == 2, said
    findings = json.loads(rows)
    hosts = {row["host"] for row in findings}
    assert len(hosts) == 5  # this machine, the address, and three hosts
    assert {"network", "versions", "room", "data", "storage"} <= {row["what"] for row in findings}
    assert any("CONVSCOUT_FAULT='x:kill:1'" in row["said"] for row in findings if row["state"] == "warning")
