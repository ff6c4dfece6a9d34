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
for architecture in ("cnn", "alexnet", "vgg11"):
    for activation in spaces.load("cnn").knobs["activation"].domain.options:
        config = spaces.load(architecture).baseline | {"activation": activation}
        assert preflight(architecture, config, (3, 64, 64), 3).impossible is None
assert "torch._dynamo.eval_frame" not in sys.modules and "sympy" not in sys.modules
transfer = spaces.load("mobilenet_v2").baseline
assert preflight("mobilenet_v2", transfer, (3, 32, 32), 3).impossible is None  # it imports torchvision
assert "torch._dynamo.eval_frame" not in sys.modules
doubled = torch.compile(lambda values: values * 2, backend="eager")
assert doubled(torch.ones(2)).tolist() == [2.0, 2.0]
assert "torch._dynamo.eval_frame" in sys.modules
import torch._dynamo.config
from torch._dynamo import optimize
assert torch._dynamo.optimize is optimize
training.epoch()
assert preflight("cnn", baseline, (3, 28, 28), 3).impossible is None
assert preflight("cnn", baseline, (3, 2, 2), 3) == preflight("cnn", baseline, (3, 2, 2), 3)
"""


EXPORTING = """
import sys
import torch
from trainables.compiler import leave_compiler_out

leave_compiler_out()
assert torch.nn.MaxPool2d(2)(torch.empty(1, 3, 4, 4, device="meta")).shape == (1, 3, 2, 2)
assert "sympy" not in sys.modules
values = torch.empty(3, 4, device="meta")
assert ((values - values.mean(0)) @ values.T).shape == (3, 3)
try:
    values + torch.empty(5, device="meta")
except RuntimeError as error:
    assert "must match" in str(error) or "broadcast" in str(error), error
else:
    raise AssertionError("shapes that do not fit passed")
images = torch.export.Dim("images")
exported = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(3, 4),), dynamic_shapes=({0: images},))
assert exported.module()(torch.zeros(7, 4)).shape == (7, 2)
from torch.fx.experimental.symbolic_shapes import ShapeEnv, guard_or_false
assert guard_or_false.__module__ == ShapeEnv.__module__
"""


def test_symbols_are_there_for_who_exports() -> None:
    house = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", EXPORTING], cwd=house, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_training_does_without_it_and_who_compiles_gets_it() -> None:
    house = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=house, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
