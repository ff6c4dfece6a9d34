"""The file of a Ray cluster (`ray up FILE`), checked offline with Ray's own schema and code: all mistakes at once."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from foundation import RequestError, read_yaml, unknown_word

MOST_SHOWN = 100  # characters of a wrong value


def cluster_problems(path: Path) -> list[str]:
    """Return a sentence for every mistake in the file of a Ray cluster: where it is, what was found, what is allowed.

    Nothing is started and no network is used: whether the cloud knows the instance types is not checked.
    """
    try:
        config = read_yaml(path, "--cluster")
    except RequestError as error:
        return list(error.problems)
    if "apiVersion" in config:
        return [
            f"--cluster {path} is a file of Kubernetes ({config.get('kind')}), not of `ray up`: "
            f"`kubectl apply --dry-run=server -f {path}` checks it"
        ]
    found = [f"--cluster {path}: {each}" for each in (*_against_schema(config), *_of_provider(config))]
    return found or [f"--cluster {path}: {each}" for each in _of_ray(config)]


def _against_schema(config: Mapping[str, Any]) -> Iterator[str]:
    import ray.autoscaler

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    asked = {key: value for key, value in config.items() if key != "min_workers"}  # Ray still takes it, and drops it
    for error in sorted(jsonschema.Draft7Validator(schema).iter_errors(asked), key=lambda each: str(each.json_path)):
        yield from _explained(error)


def _explained(error: Any) -> Iterator[str]:
    where = error.json_path.removeprefix("$").removeprefix(".")
    prefix = f"{where}: " if where else ""
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict):
            known = error.schema.get("properties", {})
            for key in sorted(str(key) for key in error.instance if key not in known):
                yield prefix + unknown_word("key", key, known)
        case "required":
            for key in (key for key in error.validator_value if key not in error.instance):
                yield f"{prefix}{key} is missing"
        case "type":
            yield f"{where} is {_shown(error.instance)}: allowed is {_words(error.validator_value)}"
        case "enum":
            yield prefix + unknown_word("value", str(error.instance), [str(each) for each in error.validator_value])
        case _:
            yield f"{where} is {_shown(error.instance)}: {error.message[:300]}"


def _words(types: Any) -> str:
    names = {"object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number"}
    found = [types] if isinstance(types, str) else types
    return " or ".join(names.get(each, f"a {each}") for each in found)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _of_provider(config: Mapping[str, Any]) -> Iterator[str]:
    from ray.autoscaler._private.providers import _NODE_PROVIDERS

    provider = config.get("provider")
    if not isinstance(provider, dict):
        return
    kind = provider.get("type")
    known = [name for name in _NODE_PROVIDERS if not name.startswith(("fake", "readonly"))]
    if isinstance(kind, str) and kind not in _NODE_PROVIDERS:
        yield "provider.type: " + unknown_word("provider", kind, known)
    if kind == "local":
        if not provider.get("head_ip") and not provider.get("coordinator_address"):
            yield "provider.head_ip is missing: the address of the host that is to be the head"
        if "available_node_types" in config:
            yield "available_node_types does not go with the provider local: its hosts are head_ip and worker_ips"


def _of_ray(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what Ray itself says of a file that fits its schema: it stops at the first mistake."""
    from ray.autoscaler._private.cli_logger import cli_logger
    from ray.autoscaler._private.util import prepare_config, validate_config

    cli_logger.configure(log_style="record", color_mode="false", verbosity=-999)
    logging.getLogger("ray.autoscaler").setLevel(logging.CRITICAL)
    if "available_node_types" in config and config.get("head_node_type") not in config["available_node_types"]:
        head = config.get("head_node_type")
        given = unknown_word("head_node_type", str(head), config["available_node_types"]) if head else ""
        yield given or f"head_node_type is missing: allowed are {', '.join(config['available_node_types'])}"
        return
    try:
        validate_config(prepare_config(json.loads(json.dumps(config))))
    except Exception as error:  # Ray raises whatever comes
        yield " ".join(str(error).split())[:500] or type(error).__name__
