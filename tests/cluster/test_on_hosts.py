"""A search on several real hosts: launched as people launch it, and whatever host or link fails, nothing is lost."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosts import HOUSE, Hosts, missing, sweep
from on_hosts import TOKEN, WITH_TOKEN, asked, join, start_by_hand, wait_for, workers
from processes import Row, rows
from promises import broken_promises

from cluster.ledger import read_history

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

CUT_SECONDS = 90.0


def up(hosts: Hosts) -> None:
    """Start the cluster as a user does, and wait until both workers are there."""
    hosts.run("laptop", f"ray up --yes --no-config-cache {hosts.shared}/cluster.yaml", timeout=300)
    wait_for(lambda: workers(hosts) == 2)


def test_a_search_launched_by_ray_up_and_ray_submit_uses_all_workers(hosts: Hosts) -> None:
    up(hosts)
    folder = hosts.shared / "all runs" / "x"
    said = hosts.run("laptop", f"convscout submit {hosts.shared}/cluster.yaml -- {asked(hosts, trials=6)}", timeout=400)
    assert broken_promises(folder) == [], said
    started = [row for row in rows(folder) if row["event"] == "started"]
    assert {row["host"] for row in started} == {"one", "two"}
    assert "ray_bootstrap_config.yaml" not in hosts.run("one", "ls ~")  # by which a head is known
    for name in ("one", "two"):  # each took the images of train and val from the head, once, and none of the test
        sent = hosts.run(name, "find ~/.cache/convscout -name 'images.npy' -o -name 'test_images.npy'").split()
        assert [Path(path).name for path in sent] == ["images.npy"]
    said = hosts.run("laptop", f"convscout submit {hosts.shared}/cluster.yaml -- search 'no such data'; echo exit=$?")
    assert "no such data" in said
    assert "exit=1" in said  # Ray's, whatever the head's was
    stopped_by_ctrl_c_on_the_laptop(hosts, folder)


def stopped_by_ctrl_c_on_the_laptop(hosts: Hosts, folder: Path) -> None:
    """Extend the search, press Ctrl-C where it was submitted, and go on: the head stops gently, and nothing is lost."""
    submit = f"convscout submit {hosts.shared}/cluster.yaml -- resume {shlex.quote(str(folder))}"
    log = hosts.shared / "log"
    running = hosts.popen("laptop", f"{submit} --trials +4", log)
    wait_for(lambda: [row for row in rows(folder) if row["event"] == "epoch" and row["trial"] >= 6], process=running)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(120) != 0
    wait_for(lambda: rows(folder)[-1]["event"] == "interrupted")
    wait_for(lambda: "convscout" not in hosts.run("head", "ps ax -o args | grep '[p]ython.*convscout.py'", check=False))
    hosts.run("laptop", submit, timeout=400)
    assert broken_promises(folder) == []
    assert len(read_history(folder).trials) == 10


def lost_after(folder: Path, since: float) -> float:
    """Return how long after a moment the ledger first knew of a lost trial; seconds."""
    return float(next(row["time"] for row in rows(folder) if row["event"] == "lost" and row["time"] >= since) - since)


def repeated(folder: Path) -> int:
    """Return the most epochs that any start of a trial trained again."""
    most, known = 0, read_history(folder)
    for record in known.trials.values():
        for start in (row for row in rows(folder) if row["event"] == "started" and row["trial"] == record.trial):
            before = [row for row in record.epochs if row["seq"] < start["seq"]]
            begins = int(start["start_from"].rpartition("e")[2]) if start["start_from"] else 0
            most = max(most, len(before) - begins)
    return most


@pytest.mark.parametrize("fault", ["killed", "cut off for 90 s"])
def test_a_worker_host_that_is(hosts: Hosts, fault: str) -> None:
    start_by_hand(hosts, "one", "two")
    folder, log = hosts.shared / "all runs" / "x", hosts.shared / "log"
    running = hosts.popen(
        "head", f"python {HOUSE}/convscout.py {asked(hosts, '--address', 'auto', trials=4, epochs=30)}", log
    )
    wait_for(
        lambda: [
            row for row in rows(folder) if row["event"] == "epoch" and row["epoch"] >= 3 and on(folder, row, "two")
        ],
        process=running,
    )
    since = time.time()
    if fault == "killed":
        hosts.kill("two")
    else:
        hosts.cut("two")
        time.sleep(CUT_SECONDS)
        hosts.restore("two")
    assert running.wait(600) == 0, log.read_text()
    assert broken_promises(folder) == []
    assert {record.status for record in read_history(folder).trials.values()} == {"completed"}
    assert repeated(folder) <= 1
    print(f"{fault}: a trial known to be lost after {lost_after(folder, since):.1f} s, {repeated(folder)} epochs again")


def test_a_worker_that_hangs_on_another_host_is_ended_there(hosts: Hosts) -> None:
    counts = hosts.shared / "counts"
    counts.mkdir()
    start_by_hand(
        hosts,
        "one",
        before=f"export CONVSCOUT_FAULT=trial.epoch:hang:4 CONVSCOUT_FAULT_COUNTS={shlex.quote(str(counts))};",
    )
    folder = hosts.shared / "all runs" / "x"
    hosts.run("head", f"convscout {asked(hosts, '--epoch-timeout', '15s', '--address', 'auto', trials=1)}", timeout=400)
    (record,) = read_history(folder).trials.values()
    assert (record.status, [row["cause"] for row in record.lost]) == ("completed", ["hung"])
    assert broken_promises(folder) == []


def on(folder: Path, row: Row, host: str) -> bool:
    """Whether a row's trial runs on a host."""
    record = read_history(folder).trials[row["trial"]]
    starts = [each for each in rows(folder) if each["event"] == "started" and each["trial"] == record.trial]
    return bool(starts) and starts[-1]["host"] == host and record.live


def test_the_head_dies_and_the_search_goes_on_in_a_new_cluster(hosts: Hosts) -> None:
    start_by_hand(hosts, "one", "two")
    folder, log = hosts.shared / "all runs" / "x", hosts.shared / "log"
    running = hosts.popen("head", f"convscout {asked(hosts, '--address', 'auto', trials=4, epochs=20)}", log)
    wait_for(lambda: [row for row in rows(folder) if row["event"] == "epoch" and row["epoch"] == 5], process=running)
    hosts.kill("head")
    running.wait(60)
    known = rows(folder)
    for name in ("one", "two"):
        hosts.run(name, "ray stop --force", check=False)
    hosts.boot("head")
    start_by_hand(hosts, "one", "two")
    said = hosts.run("head", f"convscout resume {shlex.quote(str(folder))} --address auto", timeout=400)
    assert rows(folder)[: len(known)] == known
    assert broken_promises(folder) == [], said
    assert {record.status for record in read_history(folder).trials.values()} == {"completed"}
    assert repeated(folder) <= 1
    print(f"head killed: {repeated(folder)} epochs again")


def test_a_laptop_uses_a_cluster_by_its_address_and_is_told_what_keeps_it_out(hosts: Hosts) -> None:
    start_by_hand(hosts, "one", "two")
    folder, address = hosts.shared / "all runs" / "x", f"{hosts.address['head']}:6379"
    command = f"convscout {asked(hosts, '--address', address, trials=3, epochs=3)}"
    refusals = {
        "rm ~/.ray/auth_token; ": "this cluster wants a token, and there is none here",
        "export RAY_AUTH_TOKEN=0123456789abcdef; ": "the one in RAY_AUTH_TOKEN is not the cluster's",
    }
    for before, expected in refusals.items():
        began = time.monotonic()
        said = hosts.run("laptop", f"{before}{command}; echo exit=$?; echo {TOKEN} > ~/.ray/auth_token")
        assert expected in " ".join(said.split())
        assert "exit=2" in said
        print(f"refused after {time.monotonic() - began:.1f} s")
    assert not folder.exists()
    hosts.run("laptop", command)
    assert broken_promises(folder) == []
    assert {row["host"] for row in rows(folder) if row["event"] == "started"} <= {"one", "two"}
    left = hosts.run("laptop", "ps ax", check=True)
    assert "raylet" not in left  # it was a part of the cluster for that long, and no longer


def test_a_job_runs_with_the_code_of_the_checkout(hosts: Hosts) -> None:
    pytest.importorskip("aiohttp_cors", reason="Ray's job server needs ray[default], the extra `cluster`")
    hosts.run("head", f"{WITH_TOKEN} ray start --head --port=6379 --num-cpus=0 --dashboard-host=0.0.0.0")
    for name in ("one", "two"):
        join(hosts, name)
    folder, dashboard = hosts.shared / "all runs" / "x", f"http://{hosts.address['head']}:8265"
    said = hosts.run("laptop", f"convscout submit --job {dashboard} -- {asked(hosts, trials=3, epochs=3)}", timeout=400)
    assert broken_promises(folder) == [], said
    assert {row["host"] for row in rows(folder) if row["event"] == "started"} <= {"one", "two"}


def test_hosts_leave_nothing(tmp_path: Path) -> None:
    def left() -> tuple[list[str], str]:
        spaces = [path.name for path in Path("/run/netns").iterdir() if f"-{os.getpid()}-" in path.name]
        mounts = Path("/proc/self/mounts").read_text()
        return spaces, mounts

    before = left()
    with Hosts(tmp_path, ["a", "b"]) as made:
        inside = made.run("a", "hostname; ls -A /tmp; touch /tmp/only-here; ssh-keyscan -T 20 b 2>/dev/null | wc -l")
        assert inside.split()[0] == "a"
        assert int(inside.split()[-1]) > 0
        assert "only-here" not in made.run("b", "ls /tmp")
        asleep = made.popen("b", "sleep 1000")
        made.cut("b")
        assert (
            made.run("a", "timeout 5 bash -c 'echo > /dev/tcp/b/22' && echo through", check=False).strip() != "through"
        )
        made.restore("b")
        wait_for(
            lambda: "through" in made.run("a", "timeout 5 bash -c 'echo > /dev/tcp/b/22' && echo through", check=False)
        )
        made.kill("b")
        asleep.communicate(timeout=20)
        assert asleep.returncode != 0
    assert left() == before == ([], before[1])


def test_what_a_dead_test_left_is_swept_up(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, sys; from pathlib import Path; from hosts import Hosts\n"
        f"made = Hosts(Path({str(tmp_path)!r}), ['a']); made.start(); print(made.pid('a'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = f"{HOUSE}:{HOUSE / 'tests' / 'cluster'}"
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    init = int(done.stdout)
    wait_for(lambda: not Path(f"/proc/{init}").exists())  # the kernel ends the host with its test
    sweep()
    assert not [space for space in os.listdir("/run/netns") if "convscout-" in space and gone(space)]


def gone(space: str) -> bool:
    return not Path(f"/proc/{space.split('-')[1]}").exists()
