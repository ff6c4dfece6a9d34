"""The hyperparameters that several architectures have in common."""

from spaces.domains import Choice, Uniform
from spaces.knobs import Among, Between, Knob

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh")

KERNEL_SIDES = Among((1, 3, 5, 7, 9, 11))
FILTERS = Between(1, 4096, whole=True)

DENSE_UNITS = Knob(
    Choice((128, 256, 512, 1024)), "units per layer", "the 4096 of the papers were for 1000 classes", FILTERS
)
DROPOUT = Knob(Uniform(0, 0.7), "probability", "0.5 is usual; beyond 0.7 little is learned", Between(0, 0.95))
ACTIVATION = Knob(Choice(ACTIVATIONS), "", "the usual ones", Among(ACTIVATIONS))
BATCH_NORM = Knob(Choice((True, False)), "", "faster training against noise in small batches", Among((True, False)))
