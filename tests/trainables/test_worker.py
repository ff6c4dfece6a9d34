"""What a worker of a cluster of our own has imported before it is asked for anything."""

import subprocess
import sys
from pathlib import Path

from cluster.connect import LOCAL

SCRIPT = """
import gc, sys
import {module}
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000, gc.get_freeze_count()
wanted = {{"torch", "ray.tune", "trainables.trainable", "trainables.training", "trainables.checkpoint"}}
assert wanted <= set(sys.modules), wanted - set(sys.modules)
unwanted = {{"scipy", "sklearn", "torchvision"}} & set(sys.modules)
assert not unwanted, unwanted
"""


def test_a_worker_has_what_trials_need_and_passes_over_it_when_it_collects_garbage() -> None:
    script = SCRIPT.format(module=LOCAL["RAY_preload_python_modules"])
    house = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=house, timeout=120)
    assert done.returncode == 0, done.stderr
