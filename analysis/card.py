"""The model card: what someone who finds the model folder must know before using it (after Mitchell et al., 2019)."""

from collections.abc import Mapping
from typing import Any

from analysis.wording import figure_rows, knob, over_runs
from foundation import count


def model_card(description: Mapping[str, Any]) -> str:
    """Return the card of a `model.json` as Markdown; names from outside stand as code and can format nothing."""
    channels, height, width = description["image_shape"]
    colour = "grey" if channels == 1 else "RGB"
    classes = description["classes"]
    parts = [
        f"# {_code(description['architecture'])}, an image classifier",
        f"It sorts an image into one of {count(len(classes), 'class')}. It always answers with one of them, also for "
        "an image that shows none, and it knows only images like those it was trained on.",
        "## Classes",
        ", ".join(_code(name) for name in classes),
        "## Trained on",
        "\n".join(f"- {name}: {_code(knob(value))}" for name, value in description["trained_on"].items()),
        f"Images become {width} x {height} pixels, {colour} ({description['resize']}).",
        "## Figures on the test images",
        _figures(description["metrics"]),
        "## Use",
        "```\nconvscout predict THIS_FOLDER IMAGE_OR_FOLDER...\n```",
        "```python\nfrom pathlib import Path\n\nfrom analysis.deploy import load_model\n\n"
        'for prediction in load_model(Path("THIS_FOLDER")).predict(["image.jpg"]):\n'
        "    print(prediction.path, prediction.label, prediction.probability)\n```",
        "## Hyperparameters of the model",
        "\n".join(f"- {name}: {_code(knob(value))}" for name, value in description["config"].items()),
        "## Made with",
        ", ".join(f"{name} {version}" for name, version in description["versions"].items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "None: this model was never tested."
    lines = [
        f"Accuracy {over_runs(metrics['accuracy'])} on {count(metrics['n_images'], 'image')} it never saw. The weights "
        f"here are those of 1 of {count(metrics['accuracy']['n'], 'run')}.",
        "\n| figure | mean | 95 % interval | runs |\n|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in figure_rows(metrics)]
    return "\n".join(lines)


def _code(text: str) -> str:
    """Return `text` as Markdown code: nothing in it formats, links or breaks the line."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())}`"
