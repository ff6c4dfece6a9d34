from analysis.wording import interval, joined, knob, over_runs, percent, resizing
from foundation import count


def test_an_accuracy_has_its_interval_or_says_1_run() -> None:
    three = {"mean": 0.912, "low": 0.901, "high": 0.923, "n": 3}
    assert over_runs(three) == "91.2 % (3 runs, 95 % interval 90.1 to 92.3 %)"
    assert over_runs({"mean": 0.912, "low": None, "high": None, "n": 1}) == "91.2 % (1 run)"
    assert interval({"mean": 0.5, "low": 0.4, "high": 0.6, "n": 2}, share=False) == "0.4000 to 0.6000"


def test_small_words() -> None:
    assert [count(1, "run"), count(1200, "image"), count(2, "class")] == ["1 run", "1,200 images", "2 classes"]
    assert [joined([]), joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [knob(None), knob(0.000123456), knob(64), knob("sgd"), percent(None)] == ["–", "0.0001235", "64", "sgd", "–"]


def test_resizing_says_what_becomes_of_an_image() -> None:
    how = "is scaled to 64 x 64 pixels; interpolated linearly; where a side shrinks to two thirds or less, "
    how += "all that shrink are averaged before; "
    how += "what is transparent is laid over white before"
    squash = {"image_shape": [3, 64, 64], "resize": "squash"}
    assert resizing(squash) == f"the whole image, whatever its shape, {how}"
    assert resizing(squash | {"resize": "crop"}) == f"the centre square {how}"
