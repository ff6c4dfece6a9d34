"""torch's compiler is imported by who compiles, and by nobody else."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import numpy as np, torch
import spaces
from search.preflight import preflight
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training

images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 3), dtype=np.uint8)
data = Dataset(images, np.arange(12) % 3, np.arange(9), np.arange(9, 12), 3, (128.0,) * 3, (70.0,) * 3)
baseline = spaces.load("cnn").baseline | {"filters": 8, "batch_size": 4}
assert preflight("cnn", baseline, (3, 28, 28), 3).impossible is None
training = Training(data, Settings())
for optimizer in ("adam", "adamw", "sgd", "rmsprop"):
    momentum = {"momentum": 0.9} if optimizer in ("sgd", "rmsprop") else {}
    training.begin("cnn", baseline | {"optimizer": optimizer} | momentum, seed=0, epochs=2)
    training.epoch()
    training.restore(training.state())
assert "torch._dynamo.eval_frame" not in sys.modules
doubled = torch.compile(lambda values: values * 2, backend="eager")
assert doubled(torch.ones(2)).tolist() == [2.0, 2.0]
assert "torch._dynamo.eval_frame" in sys.modules
import torch._dynamo.config
from torch._dynamo import optimize
assert torch._dynamo.optimize is optimize
training.epoch()
"""


def test_training_does_without_it_and_who_compiles_gets_it() -> None:
    house = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=house, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
