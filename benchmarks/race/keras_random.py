"""Keras Tuner's RandomSearch as in its guides, with TensorFlow on all cores."""

import shared

# isort: split
import keras_tuner
from keras_parts import RaceModel, run


def main() -> None:
    """Search until the time is over."""
    options = shared.read_options(__doc__)
    log = shared.open_log(options)
    shared.end_in_time(log)
    tuner = keras_tuner.RandomSearch(
        RaceModel(log),
        objective="val_accuracy",
        max_trials=1000,
        seed=options.seed,
        directory=options.work,
        project_name="keras_random",
        overwrite=True,
    )
    run(tuner, options, epochs=shared.EPOCHS)


if __name__ == "__main__":
    main()
