"""What a worker imports as it starts, before anything is asked of it.

Without the garbage collector, which would go through what was imported some twenty times: 1.9 s of a core instead of
2.6 (three runs each in turn). Nor does it go through it again while trials are trained.
"""

import gc
from importlib import import_module

gc.disable()
try:
    for name in ("torch", "trainables.trainable", "trainables.training", "trainables.checkpoint"):
        import_module(name)
finally:
    gc.freeze()
    gc.enable()
