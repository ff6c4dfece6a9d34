"""What is wrong with one of several real hosts: said with its name and the remedy, before trials start or after."""

import json
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

import pytest
from hosts import Hosts, missing
from on_hosts import WITH_TOKEN, asked, join, start_by_hand, wait_for, workers
from processes import rows
from promises import broken_promises

from cluster.ledger import read_history

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

OTHER_RAY = "2.59.0"
HOME = Path.home()
SMALL = "~/small"  # a cache folder on a file system of its own
# It may add a host of one core, and never does.
AUTOSCALER = "import time; time.sleep(10**6)"
KINDS = {"head_node_type": "head", "max_workers": 1}
KINDS |= {"available_node_types": {"head": {}, "one": {"resources": {"CPU": 1}, "max_workers": 1}}}


def small_disk(size: str) -> str:
    """Return the commands that give a host a cache folder with little room."""
    return f"mkdir {SMALL} && mount -t tmpfs -o size={size} tmpfs {SMALL} && export CONVSCOUT_CACHE={SMALL};"


def refused(hosts: Hosts, command: str, name: str = "head") -> str:
    """Return what a command says that is refused, in one line; it leaves no process behind."""
    said = hosts.run(name, f"convscout {command}; echo exit=$?", timeout=400)
    assert said.split()[-1] == "exit=2", said
    assert "Traceback" not in said
    assert "convscout" not in hosts.run(name, "ps ax -o args", check=True)
    return " ".join(said.split())


def test_a_storage_or_a_disk_that_fails_one_host_stops_a_search_before_it_begins(hosts: Hosts) -> None:
    storage = hosts.shared / "all runs"
    storage.mkdir()
    start_by_hand(hosts, "one")
    join(hosts, "two", small_disk("64k"))
    at = shlex.quote(str(storage))
    search = asked(hosts, "--address", "auto", trials=2, epochs=2)
    hosts.run("two", f"mount -t tmpfs tmpfs {at}")  # a folder of its own at the same path
    said = refused(hosts, search)
    assert f"error: two: it does not have the folder {storage}/x of this host" in said
    assert "Mount the same folder on every host at the same path (NFS), or give --storage s3://" in said
    assert "one:" not in said
    hosts.run("two", f"umount {at}")
    said = refused(hosts, search)
    assert "error: host two: the images are not there and take " in said
    assert f"'{HOME}/small' has 0 MB free: make room there, or set CONVSCOUT_CACHE on that host" in said
    assert "host one" not in said
    assert list(storage.iterdir()) == []
    hosts.run("two", f"mount -o remount,size=200m {SMALL}")  # the remedy
    hosts.run("head", f"convscout {search}", timeout=400)
    assert broken_promises(storage / "x") == []


def test_a_late_host_whose_disk_fills_up_as_the_images_come_gets_no_trials(hosts: Hosts) -> None:
    start_by_hand(hosts, "one")
    folder, log = hosts.shared / "all runs" / "x", hosts.shared / "log"
    running = hosts.popen("head", f"convscout {asked(hosts, '--address', 'auto', trials=5, epochs=20)}", log)
    wait_for(lambda: [row for row in rows(folder) if row["event"] == "epoch"], process=running)
    files = "images.npy labels.npy split.npy groups.npy paths.json manifest.json"
    sizes = hosts.run("head", f"cd $(dirname ~/.cache/convscout/*/manifest.json) && stat --format=%s {files}").split()
    join(hosts, "two", small_disk(str(sum(map(int, sizes)))))  # enough, but for what a file system needs itself
    assert running.wait(600) == 0, log.read_text()
    assert broken_promises(folder) == []
    history = read_history(folder)
    assert {record.status for record in history.trials.values()} == {"completed"}
    unfit = [row for record in history.trials.values() for row in record.lost if row["cause"] == "unfit"]
    assert unfit, log.read_text()
    why = f"host two: the images could not be fetched into '{HOME}/small/sent' (No space left on device): make room"
    assert unfit[0]["error"].startswith(why)
    assert not any(row["charged"] for record in history.trials.values() for row in record.lost)
    assert {row["host"] for record in history.trials.values() for row in record.started} == {"one"}
    said = " ".join(log.read_text().split())
    assert f"goes to another host, as all others do: {why}" in said
    assert [line for line in hosts.run("two", f"ls {SMALL}/sent").split() if not line.startswith(".")] == []
    print(f"a full disk: {len(unfit)} trials went elsewhere")


def test_a_worker_with_a_wrong_token_or_other_versions_is_told_so_and_keeps_out(hosts: Hosts, tmp_path: Path) -> None:
    start_by_hand(hosts)
    assert "no worker has joined; `ray start" in refused(hosts, asked(hosts, "--address", "auto"))
    address = f"{hosts.address['head']}:6379"
    start = f"{{}} start --address={address} --num-cpus=1; echo exit=$?"
    hosts.run("one", f"{WITH_TOKEN} echo 0123456789abcdef > ~/.ray/auth_token")
    said = hosts.run("one", f"export RAY_AUTH_MODE=token; {start.format('ray')}", timeout=300)
    assert "Authentication token is missing or incorrect" in said  # Ray's own words, after some 25 s
    assert said.split()[-1] == "exit=1"
    assert "raylet" not in hosts.run("one", "ps ax -o args")
    said = refused(hosts, f"doctor --address {address} --storage {hosts.shared}/runs", "one")
    assert f"this cluster wants a token, and the one in {HOME}/.ray/auth_token is not the cluster's: put" in said
    with_other_ray(hosts, start, tmp_path)
    with_other_python(hosts, start)


def with_other_ray(hosts: Hosts, start: str, tmp_path: Path) -> None:
    """Try to join with another Ray, and ask the doctor there; left out, and said, where none can be installed."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{'/usr/bin'}")
    other = hosts.shared / "other"
    made = (
        uv and subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, other], check=False).returncode == 0
    )
    install = [str(uv), "pip", "install", "--quiet", "--no-deps", "--python", f"{other}/bin/python"]
    if not made or subprocess.run([*install, f"ray=={OTHER_RAY}"], check=False).returncode:
        print(f"not tried: a host with another Ray; Ray {OTHER_RAY} could not be installed by uv")
        return
    [packages] = (other / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # all but Ray are ours
    python = shlex.quote(str(other / "bin" / "python"))
    said = hosts.run("two", f"{WITH_TOKEN} {start.format(f'{python} -m ray.scripts.scripts')}", timeout=300)
    ours = metadata.version("ray")
    assert f"Version mismatch: The cluster was started with: Ray: {ours}" in " ".join(said.split())
    assert said.split()[-1] == "exit=1"
    doctor = f"{python} -m convscout doctor --address {hosts.address['head']}:6379 --storage {hosts.shared}/runs"
    said = hosts.run("two", f"{doctor}; echo exit=$?", timeout=300)
    assert f"the cluster runs Ray {ours}, and {OTHER_RAY} is here ({other}/bin/python): install the same on" in said
    assert said.split()[-1] == "exit=2"


def with_other_python(hosts: Hosts, start: str) -> None:
    """Join with another patch of Python, which Ray lets pass where it is told to; left out where there is none."""
    other = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    version = "import platform; print(platform.python_version())"
    asked_it = [other, "-c", version]
    found = subprocess.run(asked_it, capture_output=True, text=True).stdout.strip() if Path(other).exists() else ""
    if found in ("", platform.python_version()):
        print(f"not tried: a host with another Python; {other} is {found or 'not there'}")
        return
    ray = f"PYTHONPATH=$PYTHONPATH:{sysconfig.get_path('purelib')} {other} -m ray.scripts.scripts"
    said = hosts.run("two", f"{WITH_TOKEN} {start.format(ray)}", timeout=300)
    assert f"Python: {found}" in said
    assert said.split()[-1] == "exit=1"
    lenient = "export RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor;"
    hosts.run("two", f"{WITH_TOKEN} {lenient} {start.format(ray)}", timeout=300)
    said = refused(hosts, asked(hosts, "--address", "auto"))
    ours = platform.python_version()
    assert f"error: host two: it has python {found}, the driver {ours}: install python {ours} there" in said
    assert not (hosts.shared / "all runs").exists()


def test_ctrl_c_while_a_search_waits_for_a_host_loses_nothing_and_it_goes_on_when_one_comes(hosts: Hosts) -> None:
    start_by_hand(hosts)
    lines = [line.split() for line in hosts.run("head", "ps ax -o pid,args").splitlines()]
    own = [pid for pid, *words in lines if any(word.endswith("/monitor.py") for word in words)]
    hosts.run("head", f"kill {' '.join(own)}")  # Ray's own, which can add nothing
    monitor = hosts.shared / "autoscaler" / "v2" / "monitor.py"
    monitor.parent.mkdir(parents=True)
    monitor.write_text(AUTOSCALER)
    absent = {"type": "local", "worker_ips": [hosts.address["two"]]}
    (hosts.shared / "kinds.yaml").write_text(json.dumps(KINDS | {"provider": absent}))
    at = f"--gcs-address={hosts.address['head']}:6379 --autoscaling-config={hosts.shared}/kinds.yaml"
    hosts.run("head", f"nohup python {monitor} {at} > /dev/null 2>&1 &")
    folder = hosts.shared / "all runs" / "x"
    search = asked(hosts, "--address", "auto", trials=2, epochs=2)
    said = interrupted_while_it_waits(hosts, search)
    assert "convscout search digits" in said.rpartition("nothing is lost. Go on with: ")[2]
    assert f"{hosts.address['two']} is in the cluster's file and has not joined: off, not reached" in said
    assert not folder.exists()
    join(hosts, "one")
    hosts.run("head", f"convscout {search}", timeout=400)
    hosts.run("one", "ray stop")  # not killed: then it is 65 s before the head knows
    wait_for(lambda: workers(hosts) == 0)
    resume = f"resume {shlex.quote(str(folder))}"
    said = interrupted_while_it_waits(hosts, f"{resume} --trials +1")
    assert f"Go on with: convscout {resume}" in said
    join(hosts, "one")
    hosts.run("head", f"convscout {resume}", timeout=400)
    assert broken_promises(folder) == []
    assert {record.status for record in read_history(folder).trials.values()} == {"completed"}
    assert len(read_history(folder).trials) == 3


def interrupted_while_it_waits(hosts: Hosts, command: str) -> str:
    """Run a command on the head, press Ctrl-C when it says that it waits for a host, and return what it said."""
    log, pid = hosts.shared / "log", hosts.shared / "pid"
    log.unlink(missing_ok=True)
    running = hosts.popen("head", f"echo $$ > {shlex.quote(str(pid))}; exec convscout {command}", log)
    said = "Hosts with 1 core for a trial are not there yet: waiting for one, 30 min at most."
    while said not in " ".join(log.read_text().split()):
        assert running.poll() is None, log.read_text()
        time.sleep(0.5)
    hosts.run("head", f"kill -INT {pid.read_text()}")
    assert running.wait(120) == 130, log.read_text()
    assert "convscout" not in hosts.run("head", "ps ax -o args")
    return " ".join(log.read_text().split())
