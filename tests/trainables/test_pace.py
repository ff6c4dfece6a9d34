import spaces
from trainables.calibrate import Sample
from trainables.pace import measure_pace
from trainables.settings import Settings

BASELINE = spaces.load("cnn").baseline


def test_a_larger_model_has_a_slower_pace() -> None:
    samples = [Sample("cnn", BASELINE | {"filters": filters}) for filters in (8, 64)]
    small, large = measure_pace(samples, {"cnn": Settings()}, (3, 32, 32), 10, 0.2, seconds=0.0)
    assert 0 < 3 * small.seconds_per_image < large.seconds_per_image  # 64 times the operations of most layers
    assert small.begin_seconds > 0
