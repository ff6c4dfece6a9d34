"""Join a Ray cluster or start one here, with every switch Ray reads from the environment set in one place."""

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

from cluster.resources import Slot
from foundation import RequestError

# Each with the reason it is not left at Ray's default (verified with Ray 2.60, see docs/decisions.md).
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the user's machine unasked
    "RAY_AUTH_MODE": "disabled",  # or a local start writes ~/.ray/auth_token
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU share keeps the visible devices as they were
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # launch() handles Ctrl-C, or fit() would return as if all were done
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger and our TensorBoard events replace them
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # Ray sees no metrics: our hooks decide
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Ray's own state is never read back
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner even when told to be silent
}


def connect(address: str | None = None, cpus: int | None = None) -> Any:
    """Return the `ray` module, connected: to `address` if given, to a running local session, or to a new one here.

    `cpus` limits how many cores a new local session takes. Raises `RequestError` when `address` does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

    if ray.is_initialized():
        return ray
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if address is None:
                ray.init(num_cpus=cpus, include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise RequestError(
            f"no Ray cluster answers at {address}: {error}. Start one with `ray start --head`, or leave --address out"
        ) from error
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


def run_on_worker(function: Callable[..., Any], slot: Slot, *arguments: Any) -> Any:
    """Return what `function(*arguments)` gives in a worker process that has a trial's resources."""
    import ray

    remote = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus, max_retries=0)(function)
    return ray.get(remote.remote(*arguments))


def disconnect() -> None:
    """Leave the cluster; a session that `connect` started here ends with all its processes."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
