"""The file of a Ray cluster (`ray up FILE`), checked offline by what we know of it and by Ray's own code."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.described import read_cluster_file
from foundation import RequestError


def checked_cluster_file(path: Path) -> dict[str, Any]:
    """Return what a cluster's YAML file says, as Ray takes it too.

    Nothing is started and no network is used: whether the cloud knows the instance types is not checked. Raises
    `RequestError` with every mistake: where it is, what was found, what is allowed.
    """
    content = read_cluster_file(path)
    if refused := _refused_by_ray(content):
        raise RequestError(f"{path}: {refused}")
    return content


def _refused_by_ray(config: Mapping[str, Any]) -> str | None:
    """Return what Ray itself says against a file that fits its schema; it stops at the first mistake."""
    from ray.autoscaler._private.cli_logger import cli_logger
    from ray.autoscaler._private.util import prepare_config, validate_config

    cli_logger.configure(log_style="record", color_mode="false", verbosity=-999)
    logging.getLogger("ray.autoscaler").setLevel(logging.CRITICAL)
    try:
        validate_config(prepare_config(json.loads(json.dumps(config))))
    except Exception as error:  # Ray raises whatever comes
        return " ".join(str(error).split())[:500] or type(error).__name__
    return None
