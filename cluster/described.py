"""Reads the YAML file that describes a cluster to `ray up`, and finds every mistake in it without starting anything."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foundation import Problems, RequestError, read_yaml, unknown_word

PROVIDERS = ("aws", "azure", "gcp", "local", "vsphere")
# Of the local provider: Ray lets any key pass there, and asks for the right one afterwards.
LOCAL_KEYS = ("type", "head_ip", "worker_ips", "external_head_ip", "coordinator_address", "use_internal_ips")
PLACEHOLDERS = ("HEAD", "WORKER1", "WORKER2", "PROJECT", "SECURITY-GROUP")  # what our own files leave to the user
TYPES = {"object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number"}
TYPES |= {"boolean": "true or false", "null": "nothing"}


def read_cluster_file(path: Path) -> dict[str, Any]:
    """Return what a cluster's YAML file says; `RequestError` with everything that is wrong in it.

    It is held against the schema of the installed Ray, and against what the providers and our own files need.
    """
    content = read_yaml(path, "the cluster file")
    if "apiVersion" in content:
        raise RequestError(
            f"{path} is a file of Kubernetes ({content.get('kind')}), not of `ray up`: `kubectl apply -f {path}` "
            "starts it, with --dry-run=server it is only checked"
        )
    problems = Problems()
    _check_schema(content, path, problems)
    provider = content.get("provider")
    if isinstance(provider, dict):
        _check_provider(content, provider, path, problems)
    _check_files(content, path, problems)
    problems.raise_if_any()
    return content


def _check_schema(content: dict[Any, Any], path: Path, problems: Problems) -> None:
    import jsonschema

    package = find_spec("ray")
    assert package is not None
    assert package.origin is not None
    schema = json.loads((Path(package.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(content):
        at = ".".join(str(part) for part in error.absolute_path)
        where = f"{path}, {at}" if at else str(path)
        match error.validator:
            case "additionalProperties":
                allowed = error.schema["properties"]
                for key in sorted(set(map(str, error.instance)) - set(allowed)):
                    problems.add(f"{where}: {unknown_word('key', key, allowed)}")
            case "required":
                missing = [key for key in error.validator_value if key not in error.instance]
                problems.add(f"{where}: {' and '.join(missing)} must be given")
            case "type":
                wanted = error.validator_value
                wanted = wanted if isinstance(wanted, list) else [wanted]
                said = " or ".join(TYPES[kind] for kind in wanted)
                problems.add(f"{where}: {error.instance!r} was found, {said} is needed")
            case _:
                problems.add(f"{where}: {error.message}")


def _check_provider(content: dict[str, Any], provider: dict[str, Any], path: Path, problems: Problems) -> None:
    kind = provider.get("type")
    if kind is not None and kind != "external" and kind not in PROVIDERS:
        problems.add(f"{path}, provider: {unknown_word('type', str(kind), PROVIDERS)}")
    if kind == "local":
        for key in sorted(set(map(str, provider)) - set(LOCAL_KEYS)):
            problems.add(f"{path}, provider: {unknown_word('key', key, LOCAL_KEYS)}")
        if "coordinator_address" not in provider:
            for key in ("head_ip", "worker_ips"):
                if key not in provider:
                    problems.add(f"{path}, provider: {key} must be given: the machines of a local cluster")
        if content.get("available_node_types"):
            problems.add(f"{path}: available_node_types is not for the local provider: its machines are those listed")
    named = [provider.get("head_ip"), provider.get("project_id")]
    workers = provider.get("worker_ips")
    named += workers if isinstance(workers, list) else []
    kinds = content.get("available_node_types")
    configs = (
        [each.get("node_config") for each in kinds.values() if isinstance(each, dict)]
        if isinstance(kinds, dict)
        else []
    )
    groups = [each.get("SecurityGroupIds") for each in configs if isinstance(each, dict)]
    named += sorted({word for group in groups if isinstance(group, list) for word in map(str, group)})
    for word in named:
        if word in PLACEHOLDERS:
            problems.add(f"{path}: {word} stands for something of yours: write it there")
    head = content.get("head_node_type")
    if isinstance(kinds, dict) and kinds and head not in kinds:
        said = unknown_word("the head's node type", str(head), map(str, kinds))
        problems.add(f"{path}, head_node_type: {said}")


def _check_files(content: dict[str, Any], path: Path, problems: Problems) -> None:
    """Note files of this machine that the cluster's start would miss."""
    mounts, auth = content.get("file_mounts"), content.get("auth")
    for remote, local in mounts.items() if isinstance(mounts, dict) else ():
        if not isinstance(local, str):
            problems.add(f"{path}, file_mounts, {remote}: {local!r} was found, the path of a file here is needed")
        elif not Path(local).expanduser().exists():
            remedy = ": make one by `ray get-auth-token --generate`" if str(remote).endswith("auth_token") else ""
            problems.add(f"{path}, file_mounts: {local} is not on this machine{remedy}")
    key = auth.get("ssh_private_key") if isinstance(auth, dict) else None
    if isinstance(key, str) and not Path(key).expanduser().exists():
        problems.add(f"{path}, auth.ssh_private_key: {key} is not on this machine")
