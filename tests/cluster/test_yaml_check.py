from pathlib import Path

import pytest

from cluster.yaml_check import cluster_problems

LOCAL = """
cluster_name: ours
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}
auth: {ssh_user: ubuntu}
min_workers: 1
max_workers: 1
"""
AWS = """
cluster_name: ours
max_workers: 2
provider: {type: aws, region: eu-west-1}
auth: {ssh_user: ubuntu}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {InstanceType: m5.large}}
  gpu: {resources: {CPU: 8, GPU: 1}, min_workers: 0, max_workers: 2, node_config: {InstanceType: g5.2xlarge}}
"""


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    found = cluster_problems(path)
    assert all(each.startswith(f"--cluster {path}") for each in found)
    return [each.removeprefix(f"--cluster {path}: ") for each in found]


def test_a_file_that_ray_takes_has_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, LOCAL) == []
    assert problems(tmp_path, AWS) == []


def test_all_mistakes_are_told_at_once_with_the_closest_word(tmp_path: Path) -> None:
    text = "cluster_nme: x\nmax_worker: 3\nprovider: {type: awz}\nidle_timeout_minutes: soon\n"
    found = problems(tmp_path, text)
    assert "cluster_name is missing" in found
    assert any(each.startswith("key 'max_worker' is not known: did you mean 'max_workers'?") for each in found)
    assert any(each.startswith("key 'cluster_nme' is not known: did you mean 'cluster_name'?") for each in found)
    assert "idle_timeout_minutes is 'soon': allowed is a number" in found
    assert any(each.startswith("provider.type: provider 'awz' is not known: did you mean 'aws'?") for each in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            AWS.replace("head_node_type: head", "head_node_type: haed"),
            "head_node_type 'haed' is not known: did you mean",
        ),
        (AWS.replace("head_node_type: head\n", ""), "head_node_type is missing: allowed are head, gpu"),
        (AWS.replace("min_workers: 0", "min_workers: 3"), "max_workers"),
        (LOCAL.replace("head_ip: 10.0.0.1, ", ""), "provider.head_ip is missing"),
        (LOCAL + AWS[AWS.index("available") :], "does not go with the provider local"),
        ("kind: RayJob\napiVersion: ray.io/v1\n", "is a file of Kubernetes (RayJob)"),
        ("cluster_name: [\n", "cannot be read"),
        ("a: 1\na: 2\n", "a is there twice"),
        ("", "holds nothing"),
    ],
)
def test_a_mistake_is_said(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    found = cluster_problems(path)
    assert any(said in each for each in found), found


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    [found] = cluster_problems(tmp_path / "none.yaml")
    assert "cannot be read" in found
