import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.growth import Coming, autoscaled, coming, kinds_of, listed_in

KINDS: dict[str, Any] = {
    "head": {"resources": {"CPU": 4}},
    "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 3},
    "none": {"resources": {"CPU": 64}, "max_workers": 0},
}


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({"head_node_type": "head", "available_node_types": KINDS, "max_workers": 9}, [({"CPU": 8, "GPU": 1}, 3)]),
        ({"head_node_type": "head", "available_node_types": KINDS}, [({"CPU": 8, "GPU": 1}, 2)]),  # Ray's default
        ({"head_node_type": "head", "available_node_types": KINDS, "max_workers": 0}, []),
        ({"head_node_type": "head", "available_node_types": {"head": {}, "any": {}}, "max_workers": 4}, [({}, 4)]),
        ({}, []),
    ],
)
def test_the_kinds_of_hosts_that_may_come_are_read_from_the_autoscalers_file(
    config: dict[str, Any], kinds: list[Any]
) -> None:
    assert kinds_of(config) == kinds


def test_the_file_is_that_of_the_autoscaler_of_this_very_cluster(tmp_path: Path) -> None:
    import subprocess

    script = tmp_path / "autoscaler" / "v2" / "monitor.py"
    script.parent.mkdir(parents=True)
    script.write_text("print(1, flush=True); input()", encoding="utf-8")
    file = tmp_path / "cluster.yaml"
    config = {"head_node_type": "head", "available_node_types": KINDS, "max_workers": 9}
    config["provider"] = {"type": "local", "worker_ips": ["10.0.0.7"]}
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, str(script), "--gcs-address=10.1.2.3:4567", f"--autoscaling-config={file}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        monitor.stdout.readline()  # it runs
        try:
            assert autoscaled("127.0.0.1:4567") == ([({"CPU": 8, "GPU": 1}, 3)], {"10.0.0.7": "10.0.0.7"})
            assert autoscaled("10.1.2.3:567") == ([], {})
        finally:
            monitor.kill()


def test_on_kubernetes_any_kind_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    [(resources, _)], listed = autoscaled("10.1.2.3:568")
    assert (resources, listed) == ({}, {})


def test_hosts_that_the_file_lists_and_that_have_not_joined_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str) -> str:
        if name == "unknown":
            raise OSError("no address of that name")
        return {"localhost": "127.0.0.1"}.get(name, name)

    monkeypatch.setattr("socket.gethostbyname", resolve)
    listed = listed_in({"provider": {"type": "local", "worker_ips": ["10.0.0.7", "localhost", "unknown"]}})
    assert listed == {"10.0.0.7": "10.0.0.7", "localhost": "127.0.0.1", "unknown": "unknown"}
    assert listed_in({"provider": {"type": "aws"}}) == listed_in({}) == {}
    nodes = [{"Alive": True, "NodeManagerAddress": "127.0.0.1"}, {"Alive": False, "NodeManagerAddress": "10.0.0.7"}]
    context, state = SimpleNamespace(gcs_address="x:1"), SimpleNamespace(get_cluster_config=lambda: None)
    private = SimpleNamespace(state=SimpleNamespace(state=state))
    ray = SimpleNamespace(nodes=lambda: nodes, get_runtime_context=lambda: context, _private=private)
    monkeypatch.setattr("cluster.growth.on_head", lambda *_: ([], listed))
    ray.exceptions = SimpleNamespace(RayError=OSError)
    more = coming(ray)
    assert more == Coming(missing=("10.0.0.7", "unknown"))
    first, second = more.findings()
    assert (first.state, first.said.split(":")[0]) == (
        "warning",
        "10.0.0.7 is in the cluster's file and has not joined",
    )
    assert "run `convscout doctor --address HEAD:6379` there" in first.remedy
    assert second.said.startswith("unknown is")
