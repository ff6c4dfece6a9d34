"""The network of the race in Keras, as `convscout`'s cnn of three blocks, and what both Keras tuners need."""

from typing import Any

import keras
import keras_tuner
from keras import layers
from shared import CLASSES, Config, Log, Options, fixed, read_first, read_images, read_space


def activation(name: str) -> layers.Layer:
    """Return a new activation layer; leaky relu leaks as much as PyTorch's."""
    return layers.LeakyReLU(negative_slope=0.01) if name == "leaky_relu" else layers.Activation(name)


def make_optimizer(config: Config) -> keras.optimizers.Optimizer:
    """Return the optimizer of a configuration."""
    rate, momentum = config["learning_rate"], fixed("momentum")
    match config["optimizer"]:
        case "sgd":
            return keras.optimizers.SGD(rate, momentum=momentum, nesterov=True)
        case "adam":
            return keras.optimizers.Adam(rate)
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=0.0)
        case "rmsprop":
            return keras.optimizers.RMSprop(rate, momentum=momentum)
    raise ValueError(f"unknown optimizer {config['optimizer']}")


def make_model(config: Config) -> keras.Model:
    """Return the compiled network of a configuration."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for block in range(3):
        filters = config["filters"] * 2**block
        model.add(layers.Conv2D(filters, config["kernel"], padding="same", use_bias=not config["batch_norm"]))
        if config["batch_norm"]:
            model.add(layers.BatchNormalization())
        model.add(activation(config["activation"]))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dropout(config["dropout"]))
    model.add(layers.Dense(config["dense_units"]))
    model.add(activation(config["activation"]))
    model.add(layers.Dropout(config["dropout"]))
    model.add(layers.Dense(CLASSES, activation="softmax"))
    model.compile(make_optimizer(config), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class LogEpochs(keras.callbacks.Callback):
    """Writes every epoch to the log."""

    def __init__(self, log: Log, trial: int, images: int) -> None:
        super().__init__()
        self.log, self.trial, self.images = log, trial, images

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Append the epoch, which Keras counts from 0."""
        if logs:
            self.log.epoch(self.trial, epoch + 1, self.images, logs["val_accuracy"])


class RaceModel(keras_tuner.HyperModel):
    """The space of the race, and how a configuration is trained."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log, self.space, self.trials = log, read_space(), 0

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the network of the tuner's values."""
        return make_model({name: self.value(hp, name) for name in self.space})

    def value(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """Return the tuner's value for a knob of the space file."""
        description = self.space[name]
        if description == [True, False]:
            return hp.Boolean(name)
        if isinstance(description, list):
            return hp.Choice(name, description)
        sampling = "log" if description.get("log") else "linear"
        return hp.Float(name, description["low"], description["high"], sampling=sampling)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Train with the tuner's batch size."""
        self.trials += 1
        log_epochs = LogEpochs(self.log, self.trials, len(args[0]))
        kwargs["callbacks"] = [*kwargs["callbacks"], log_epochs]
        return model.fit(*args, batch_size=self.value(hp, "batch_size"), **kwargs)


def try_first(tuner: keras_tuner.Tuner, options: Options) -> None:
    """Let the tuner draw the given configurations before it draws at random: it has no way of its own to be told."""
    configs, draw = iter(read_first(options)), tuner.oracle._random_values
    tuner.oracle._random_values = lambda: next(configs, None) or draw()


def run(tuner: keras_tuner.Tuner, options: Options, **search: Any) -> None:
    """Search with images in memory, as floats in 0..1."""
    try_first(tuner, options)
    train_images, train_labels = read_images(options.data, "train")
    val_images, val_labels = read_images(options.data, "val")
    tuner.search(
        train_images.astype("float32") / 255,
        train_labels,
        validation_data=(val_images.astype("float32") / 255, val_labels),
        verbose=2,
        **search,
    )
