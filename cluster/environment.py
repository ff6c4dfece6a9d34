"""Variables of the environment that change what happens, left over from something else; each with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.connect import ENVIRONMENT
from foundation import Finding


@dataclass(frozen=True)
class Leftover:
    """What a variable does; `harmless` are values that do nothing. `everywhere`: on hosts too, else for the driver."""

    does: str
    harmless: tuple[str, ...] = ()
    everywhere: bool = True


LEFTOVERS = {
    "RAY_ADDRESS": Leftover("a search without --address joins that cluster", everywhere=False),
    # Ray sets this one in its workers, so only the driver's tells
    "CUDA_VISIBLE_DEVICES": Leftover("only these GPUs are seen, none where it is empty", everywhere=False),
    "RAY_TMPDIR": Leftover("Ray keeps its logs and sockets there; a path of more than 60 characters fails"),
    "RAY_memory_monitor_refresh_ms": Leftover("with 0 nothing ends a worker before memory is used up", ("250",)),
    "RAY_memory_usage_threshold": Leftover("Ray ends workers at another share of the memory than 0.95", ("0.95",)),
    "OMP_PROC_BIND": Leftover("binds the threads of all workers to the same cores", ("false", "FALSE")),
    "GOMP_CPU_AFFINITY": Leftover("binds the threads of all workers to the same cores"),
    "KMP_AFFINITY": Leftover("binds the threads of all workers to the same cores", ("none", "disabled")),
    "OMP_THREAD_LIMIT": Leftover("a trial has no more threads than this, whatever its cores"),
    "CUDA_LAUNCH_BLOCKING": Leftover("a GPU waits for the CPU after every step: several times as slow", ("0",)),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": Leftover(
        "GPU memory is asked for anew all the time: several times as slow", ("0",)
    ),
    "NVIDIA_TF32_OVERRIDE": Leftover("matrix products have another precision than on other hosts"),
    "PYTHONOPTIMIZE": Leftover("checks in the code are left out", ("0",)),
    "CONVSCOUT_FAULT": Leftover("kills and errors are planted for tests"),
}


def environment_findings(environment: Mapping[str, str], of_driver: bool) -> list[Finding]:
    """Return a finding for each variable that is set and changes what happens, with what it does."""
    found = []
    for name, leftover in LEFTOVERS.items():
        value = environment.get(name)
        if value is None or value in leftover.harmless or not (of_driver or leftover.everywhere):
            continue
        found.append(Finding("environment", "warning", f"{name}={value!r}: {leftover.does}", f"unset {name}"))
    if of_driver:
        found += [
            Finding(
                "environment",
                "warning",
                f"{name}={environment[name]!r}: convscout would set {value!r}, and leaves yours",
                f"unset {name}, unless that is meant",
            )
            for name, value in ENVIRONMENT.items()
            if name in environment and environment[name] != value and name != "RAY_AUTH_MODE"
        ]
    return found or [Finding("environment", "ok", "no variable is left over that would change what happens")]
