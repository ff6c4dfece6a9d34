"""Keras Tuner's Hyperband as in its guides, with TensorFlow on all cores."""

import shared

# isort: split
import keras_tuner
from keras_parts import RaceModel, run


def main() -> None:
    """Search until the time is over."""
    options = shared.read_options(__doc__)
    log = shared.open_log(options)
    shared.end_in_time(log)
    tuner = keras_tuner.Hyperband(
        RaceModel(log),
        objective="val_accuracy",
        max_epochs=shared.EPOCHS,
        factor=3,
        hyperband_iterations=1000,  # until the time is over
        seed=options.seed,
        directory=options.work,
        project_name="keras_hyperband",
        overwrite=True,
    )
    run(tuner, options)


if __name__ == "__main__":
    main()
