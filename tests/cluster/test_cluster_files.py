"""The files that describe clusters, held offline against Ray's own schema and code, against KubeRay's fields, and
against what they promise: our versions, nothing open to the world, tokens, spot machines from none on."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.yaml_check import checked_cluster_file
from foundation import RequestError

HOUSE = Path(__file__).parents[2]
FILES = ("local", "aws", "gcp")
FILLED = {"HEAD": "10.0.0.1", "WORKER1": "10.0.0.2", "WORKER2": "10.0.0.3", "PROJECT": "ours", "SECURITY-GROUP": "sg-1"}
PREPARE = """
import json, sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
prepared = prepare_config(yaml.safe_load(open(sys.argv[1])))
if prepared["provider"]["type"] == "local":  # the others ask their cloud
    from ray.autoscaler._private.local.node_provider import LocalNodeProvider
    prepared = LocalNodeProvider.bootstrap_config(prepared)
validate_config(prepared)
print(json.dumps(prepared))
"""
# Ray's own bootstrap of a cloud, whose client is a stand-in that refuses to make anything: what it leaves is what the
# machines are asked for with.
BOOTSTRAP = """
import json, sys, yaml
from importlib import import_module
from unittest.mock import MagicMock
for name in ("boto3", "boto3.exceptions", "boto3.resources.base", "botocore", "botocore.client", "botocore.config",
             "googleapiclient", "googleapiclient.discovery", "googleapiclient.errors", "google_auth_httplib2",
             "httplib2", "google.auth",
             "google.oauth2", "google.oauth2.credentials"):
    sys.modules[name] = MagicMock(__version__="1.40.0")
from ray.autoscaler._private.util import prepare_config, validate_config
prepared = prepare_config(yaml.safe_load(open(sys.argv[1])))
kind = prepared["provider"]["type"]
cloud = import_module(f"ray.autoscaler._private.{kind}.config")
steps = {"aws": ["iam_role", "key_pair", "subnet"], "gcp": ["iam_role", "key_pair", "project"]}[kind]
for name in (f"_configure_{step}" for step in steps):
    setattr(cloud, name, lambda config, *clients: config)
for name in ("_upsert_security_groups", "_list_subnets"):
    setattr(cloud, name, MagicMock(side_effect=RuntimeError(f"{name}: Ray would make or choose what we name")))
cloud.construct_clients_from_provider_config = lambda provider: (None,) * 4
prepared["auth"]["ssh_private_key"] = "key"
done = getattr(cloud, f"bootstrap_{kind}")(prepared)
validate_config({key: value for key, value in done.items() if key != "head_node"})
print(json.dumps({key: each["node_config"] for key, each in done["available_node_types"].items()}))
"""
# Of ray-operator/apis/ray/v1 (KubeRay 1.6): what a RayJob may hold.
JOB_FIELDS = """activeDeadlineSeconds backoffLimit preRunningDeadlineSeconds rayClusterSpec submitterPodTemplate
metadata clusterSelector submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode
entrypointResources entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend"""
CLUSTER_FIELDS = """upgradeStrategy authOptions suspend managedBy autoscalerOptions headServiceAnnotations
enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec rayVersion workerGroupSpecs"""
HEAD_FIELDS = "template headService enableIngress resources labels rayStartParams serviceType"
WORKER_FIELDS = """suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds resources labels rayStartParams
template scaleStrategy numOfHosts"""


def described(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((HOUSE / "cluster" / f"{name}.yaml").read_text())
    return content


def locked(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (HOUSE / "requirements.lock").read_text(), re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a file of ours as a user completes it, on a machine with a key and a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(HOUSE)
    for file in (".ssh/id_ed25519", ".ray/auth_token"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()

    def write(name: str, **changes: Any) -> Path:
        text = (HOUSE / "cluster" / f"{name}.yaml").read_text()
        for word, value in FILLED.items():
            text = re.sub(rf"\b{word}\b", value, text)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(text) | changes))
        return path

    return write


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(filled: Any, name: str) -> None:
    path = filled(name)
    assert checked_cluster_file(path)["cluster_name"] == "convscout"
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    prepared = json.loads(done.stdout.splitlines()[-1])
    workers = [each for key, each in prepared["available_node_types"].items() if key != prepared["head_node_type"]]
    if name == "local":
        (machines,) = prepared["available_node_types"].values()
        assert (machines["min_workers"], machines["max_workers"]) == (2, 2)
    else:
        assert [(each["min_workers"], each["max_workers"]) for each in workers] == [(0, 4)]
        assert all(each["resources"]["GPU"] == 1 for each in workers)


@pytest.mark.parametrize("name", FILES)
def test_what_is_left_to_the_user_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(HOUSE)
    with pytest.raises(RequestError) as error:
        checked_cluster_file(Path("cluster") / f"{name}.yaml")
    expected = {"local": ["HEAD", "WORKER1", "WORKER2"], "aws": ["SECURITY-GROUP"], "gcp": ["PROJECT"]}[name]
    for word in expected:
        assert f"{word} stands for something of yours: write it there" in str(error.value)
    assert "~/.ray/auth_token is not on this machine: make one by `ray get-auth-token --generate`" in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_open_and_a_token_is_asked_for(name: str) -> None:
    content = described(name)
    text = json.dumps(content)
    assert "0.0.0.0" not in text
    head, worker = content["head_start_ray_commands"][-1], content["worker_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    for command in (head, worker):
        assert "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0" in command
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    if name == "aws":  # Ray makes a security group, open to the world's ssh, for a type that has none
        assert all(each["node_config"]["SecurityGroupIds"] for each in content["available_node_types"].values())
    if name == "gcp":
        assert all(
            each["node_config"]["networkInterfaces"][0]["subnetwork"]
            for each in content["available_node_types"].values()
        )


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_rays_bootstrap_of_a_cloud_takes_what_the_file_names_and_opens_nothing(filled: Any, name: str) -> None:
    path = filled(name)
    done = subprocess.run(
        [sys.executable, "-c", BOOTSTRAP, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    asked = {key: each["node_config"] for key, each in yaml.safe_load(path.read_text())["available_node_types"].items()}
    found = json.loads(done.stdout.splitlines()[-1])
    assert {key: {name: each[name] for name in asked[key]} for key, each in found.items()} == asked


def test_cloud_workers_are_spot_machines() -> None:
    assert described("aws")["available_node_types"]["gpu"]["node_config"]["InstanceMarketOptions"] == {
        "MarketType": "spot"
    }
    assert described("gcp")["available_node_types"]["gpu"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"


@pytest.mark.parametrize("name", FILES)
def test_every_host_has_the_versions_of_the_lock(name: str) -> None:
    commands = described(name)["setup_commands"]
    assert any("-r ~/convscout/cluster/requirements.lock" in each for each in commands)
    (python,) = [found for each in commands for found in re.findall(r"--python (3\.\d+\.\d+)", each)]
    assert python.startswith("3.11.")  # to the patch: Ray lets no other join
    assert described(name)["file_mounts"]["~/convscout"] == "."


def test_the_client_that_rents_machines_is_the_one_that_s3_storage_goes_with() -> None:
    assert f"boto3=={locked('boto3')}" in described("aws")["head_setup_commands"][0]


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_one_that_a_shell_reads_as_it_is_meant(name: str, tmp_path: Path) -> None:
    content = described(name)
    keys = [key for key in content if key.endswith("_commands")]
    for command in [each for key in keys for each in content[key]]:
        wrapped = f"true && ({command})"  # as Ray does
        assert subprocess.run(["bash", "-n", "-c", wrapped], check=False).returncode == 0, command
        assert shlex.split(command)
    export = next(each for each in content["setup_commands"] if ".bashrc" in each)
    for _ in range(2):  # `ray up` runs it again and again
        subprocess.run(
            ["bash", "-c", export], check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, cwd="/"
        )
    assert (tmp_path / ".bashrc").read_text() == 'export PATH="$HOME/.convscout/venv/bin:$PATH"\n'


def test_the_hosts_of_a_cluster_have_the_versions_that_are_tested_here() -> None:
    here, there = (
        dict(line.split(" ;")[0].split("==") for line in (HOUSE / file).read_text().splitlines())
        for file in ("requirements.lock", "cluster/requirements.lock")
    )
    assert {name: here[name] for name in here.keys() & there.keys()} == {
        name: there[name] for name in here.keys() & there.keys()
    }
    assert {"ray", "torch", "numpy", "hyperopt"} <= here.keys() & there.keys()
    assert {
        "aiohttp-cors",
        "opencensus",
    } <= there.keys() - here.keys()  # of ray[default], whose agents a laptop is spared


def test_the_kuberay_job_has_only_fields_that_kuberay_knows() -> None:
    claim, job, policy = yaml.safe_load_all((HOUSE / "cluster" / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) <= set(JOB_FIELDS.split())
    assert set(cluster) <= set(CLUSTER_FIELDS.split())
    assert set(cluster["headGroupSpec"]) <= set(HEAD_FIELDS.split())
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= set(WORKER_FIELDS.split())
        assert 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        volumes = {each["name"]: each for each in group["template"]["spec"]["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_kuberay_job_starts_or_goes_on_in_the_shared_volume() -> None:
    job = list(yaml.safe_load_all((HOUSE / "cluster" / "kuberay.yaml").read_text()))[1]
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["convscout", "search"]  # goes on with the experiment of that name
    assert words[words.index("--storage") + 1].startswith("/shared/")
    assert "--name" in words
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked("ray")


def test_the_image_is_of_the_lock() -> None:
    lines = (HOUSE / "cluster" / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{locked('ray')}-py311" in lines
    assert "-r /home/ray/convscout/cluster/requirements.lock" in lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_wokers": 3}, "key 'max_wokers' is not known: did you mean 'max_workers'?"),
        ({"max_workers": "three"}, "max_workers: 'three' was found, a whole number is needed"),
        ({"auth": {"ssh_usr": "me"}}, "auth: key 'ssh_usr' is not known: did you mean 'ssh_user'?"),
        ({"provider": {"type": "loacl"}}, "provider: type 'loacl' is not known: did you mean 'local'?"),
        ({"provider": {"type": "local", "head_pi": "a", "worker_ips": []}}, "did you mean 'head_ip'?"),
        ({"provider": {"type": "local", "head_ip": "a"}}, "provider: worker_ips must be given"),
        ({"provider": {"head_ip": "a", "worker_ips": []}}, "provider: type must be given"),
        ({"available_node_types": {"a": {}}, "head_node_type": "a"}, "available_node_types is not for the local"),
        ({"file_mounts": {"~/x": "/no/such/file"}}, "file_mounts: /no/such/file is not on this machine"),
        ({"file_mounts": {"~/x": 3}}, "file_mounts, ~/x: 3 was found, the path of a file here is needed"),
        ({"auth": {"ssh_private_key": "~/nokey"}}, "auth.ssh_private_key: ~/nokey is not on this machine"),
        ({"idle_timeout_minutes": "soon"}, "idle_timeout_minutes: 'soon' was found, a number is needed"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(filled: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as error:
        checked_cluster_file(filled("local", **changes))
    assert said in str(error.value)


def test_all_mistakes_are_named_at_once(filled: Any) -> None:
    with pytest.raises(RequestError) as error:
        checked_cluster_file(filled("gcp", max_wokers=1, cluster_name=3, head_node_type="haed"))
    assert len(error.value.problems) == 3
    assert "did you mean 'head'?" in str(error.value)


def test_what_only_ray_finds_is_said_in_its_words(filled: Any) -> None:
    kinds = described("gcp")["available_node_types"]
    kinds["gpu"]["min_workers"] = 9
    with pytest.raises(RequestError, match="max_workers"):
        checked_cluster_file(filled("gcp", available_node_types=kinds))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: RayJob\napiVersion: ray.io/v1\n", "is a file of Kubernetes (RayJob)"),
        ("cluster_name: [\n", "cannot be read"),
        ("a: 1\na: 2\n", "a is there twice"),
        ("", "holds nothing"),
    ],
)
def test_what_is_no_file_of_a_cluster_is_said(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError) as error:
        checked_cluster_file(path)
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        checked_cluster_file(tmp_path / "none.yaml")
