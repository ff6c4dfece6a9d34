"""The model card: what someone who finds the model folder must know before using it (after Mitchell et al., 2019)."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.wording import figure_rows, knob, over_runs, percent, resizing
from foundation import count
from trainables.decode import AVERAGED_FROM

WEAKEST = 3
# With fewer test images than this one image moves a class's recall by more than 3 points.
ENOUGH_IMAGES = 30


def model_card(description: Mapping[str, Any]) -> str:
    """Return the card of a `model.json` as Markdown; names from outside stand as code and can format nothing."""
    channels = description["image_shape"][0]
    classes, trained_on = description["classes"], description["trained_on"]
    by_class = trained_on.get("images_by_class", {})
    parts = [
        f"# {_code(description['architecture'])}, an image classifier",
        f"It sorts an image into one of {count(len(classes), 'class')}: {', '.join(_code(name) for name in classes)}.",
        "## Limits",
        _limits(description["metrics"]),
        "## Data",
        "\n".join(f"- {name}: {_code(knob(value))}" for name, value in trained_on.items() if value is not by_class),
        f"Of a decoded image, {'grey' if channels == 1 else 'RGB'}, {resizing(description)}.",
        "## Figures on the test images",
        _figures(description["metrics"]),
        _by_class(description["metrics"].get("by_class", ()), by_class),
        "## Use",
        _use(description),
        "## Hyperparameters of the model",
        "\n".join(f"- {name}: {_code(knob(value))}" for name, value in description["config"].items()),
        "## Made with",
        ", ".join(f"{name} {version}" for name, version in description["versions"].items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _limits(metrics: Mapping[str, Any]) -> str:
    limits = [
        "It always answers with one of its classes, also for an image that shows none of them.",
        "It knows only images like those it was trained on. Others (another camera, light, background or crop) were "
        "not tested, and are best tried on some labelled ones first.",
        "A probability is the network's softmax as it is: nobody calibrated it.",
    ]
    if metrics:
        limits.append("The intervals below say what other seeds would give, not what other test images would.")
    rows = [row for row in metrics.get("by_class", ()) if row["support"]]
    for row in sorted(rows, key=lambda row: row["recall"])[:WEAKEST]:
        if row["recall"] < 1:
            found = round(row["recall"] * row["support"])
            limits.append(
                f"It misses {_code(row['class'])}: it found {found} of {count(row['support'], 'test image')}."
            )
    if few := [_code(row["class"]) for row in rows if row["support"] < ENOUGH_IMAGES]:
        limits.append(f"With fewer than {ENOUGH_IMAGES} test images the figures are rough: {', '.join(few)}.")
    return "\n".join(f"- {limit}" for limit in limits)


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


def _by_class(rows: Sequence[Mapping[str, Any]], trained: Mapping[str, int]) -> str:
    """Return the table of these very weights by class; "" for a model whose description does not have it."""
    if not rows:
        return ""
    lines = [
        "By class, of the weights here (1 run):",
        "",
        "| class | images trained on | test images | precision | recall | F1 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = _code(row["class"]).replace("|", "\\|")
        counts = (f"{trained[row['class']]:,}", f"{row['support']:,}")
        shares = (percent(row[name]) for name in ("precision", "recall", "f1"))
        lines.append(f"| {' | '.join((name, *counts, *shares))} |")
    return "\n".join(lines)


def _use(description: Mapping[str, Any]) -> str:
    return "\n\n".join(
        (
            "With convscout, which needs neither Ray nor the experiment for it:",
            "```\nconvscout predict THIS_FOLDER IMAGE_OR_FOLDER... --csv predictions.csv --html predictions.html\n"
            "convscout export THIS_FOLDER --format onnx\n"
            "convscout export THIS_FOLDER --format torch\n```",
            "```python\nfrom pathlib import Path\n\nfrom analysis.deploy import load_model\n\n"
            'for prediction in load_model(Path("THIS_FOLDER")).predict(["image.jpg"]):\n'
            "    print(prediction.path, prediction.label, prediction.probability)\n```",
            "Without convscout, once exported. Normalisation and class names are inside the file; decoding and scaling "
            "are not (what is transparent has to be laid over white before):",
            f"```python\n{_plain_python(description)}\n```",
            "As .pt2, which is code and is to be loaded only from people you trust:",
            '```python\nimport torch\n\nextra = {"classes": ""}\n'
            'network = torch.export.load("model.pt2", extra_files=extra).module()\n'
            "logits, probabilities = network(torch.from_numpy(images))\n```",
        )
    )


def _plain_python(description: Mapping[str, Any]) -> str:
    channels, height, width = description["image_shape"]
    lines = [
        "import json",
        "",
        "import cv2",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])',
        'image = cv2.imread("image.jpg", cv2.IMREAD_GRAYSCALE)'
        if channels == 1
        else 'image = cv2.imread("image.jpg", cv2.IMREAD_COLOR_RGB)',
    ]
    if description["resize"] == "crop":
        lines += [
            "height, width = image.shape[:2]",
            "side = min(height, width)",
            "image = image[(height - side) // 2 :, (width - side) // 2 :][:side, :side]",
        ]
    lines += [
        f"if max(image.shape[:2]) >= {AVERAGED_FROM} * {width}:",
        f"    smaller = min(image.shape[1], {width}), min(image.shape[0], {height})",
        "    image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)",
        f"image = cv2.resize(image, ({width}, {height}), interpolation=cv2.INTER_LINEAR)",
        f"images = image.reshape(1, {height}, {width}, {channels})",
        '(probabilities,) = session.run(["probabilities"], {"images": images})',
        "print(classes[probabilities[0].argmax()], probabilities[0].max())",
    ]
    return "\n".join(lines)


def _code(text: str) -> str:
    """Return `text` as Markdown code: nothing in it formats, links or breaks the line."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())}`"
