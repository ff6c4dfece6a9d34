import stat
from pathlib import Path

import pytest

from cluster import gpus
from cluster.gpus import findings_of, gpu_findings

GPU = ["NVIDIA H100 80GB HBM3", "81559", "4"]


@pytest.mark.parametrize(
    ("built_for", "driver", "used", "state", "said"),
    [
        ("12.6", 12040, "4", "ok", "2 of NVIDIA H100 80GB HBM3, torch is built for CUDA 12.6"),  # a minor version older
        ("12.6", 12080, "4", "ok", "built for CUDA 12.6"),
        ("13.0", 12080, "4", "problem", "the driver knows CUDA 12.8, torch is built for 13.0"),
        (None, 12080, "4", "warning", "built without CUDA"),
        ("12.6", None, "4", "ok", "built for CUDA 12.6"),
        ("12.6", 12060, "70000", "warning", "of 1, others hold more than 20% of the memory"),
    ],
)
def test_what_is_said_of_gpus(built_for: str | None, driver: int | None, used: str, state: str, said: str) -> None:
    [found] = findings_of([GPU, [*GPU[:2], used]], built_for, driver)
    assert found.state == state
    assert said in found.said
    assert bool(found.remedy) == (state != "ok")


def smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_driver_that_does_not_answer_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", monkeypatch)
    [found] = gpu_findings()
    assert found.state == "problem"
    assert "version mismatch" in found.said
    smi(tmp_path, "exec sleep 100", monkeypatch)
    monkeypatch.setattr(gpus, "QUERY_SECONDS", 0.2)
    [found] = gpu_findings()
    assert found.state == "problem"


def test_gpus_are_read_as_nvidia_smi_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, "echo 'NVIDIA L4, 23034, 3'; echo 'NVIDIA L4, 23034, [N/A]'", monkeypatch)
    monkeypatch.setattr(gpus, "torch_cuda", lambda: "12.6")
    monkeypatch.setattr(gpus, "driver_cuda", lambda: 12060)
    [found] = gpu_findings()
    assert found.said == "2 of NVIDIA L4, torch is built for CUDA 12.6"


def test_a_machine_without_gpus_is_in_order_and_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [(each.state, each.said) for each in gpu_findings()] == [("ok", "none of NVIDIA: trials run on the cores")]
