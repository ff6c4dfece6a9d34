import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.growth import autoscaled, kinds_of

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
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, str(script), "--gcs-address=10.1.2.3:4567", f"--autoscaling-config={file}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        monitor.stdout.readline()  # it runs
        try:
            assert autoscaled("127.0.0.1:4567") == [({"CPU": 8, "GPU": 1}, 3)]
            assert autoscaled("10.1.2.3:567") == []
        finally:
            monitor.kill()


def test_on_kubernetes_any_kind_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    [(resources, _)] = autoscaled("10.1.2.3:568")
    assert resources == {}
