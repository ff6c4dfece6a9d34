"""The commands that use a trained model; the front door lists them. They need neither Ray nor the experiment."""

import typer

import options
import terminal


def predict(
    model: options.Model,
    images: options.Images,
    csv: options.CsvFile = None,
    html: options.HtmlFile = None,
    trust_code: options.TrustCode = False,
    storage: options.Storage = "runs",
    as_json: options.AsJson = False,
) -> None:
    """Classify images: class and probability of each."""
    from analysis.deploy import find_model, write_predictions_csv
    from analysis.gallery import write_gallery

    for option, file in (("--csv", csv), ("--html", html)):
        if file:
            terminal.check_parent(option, file)
    found = find_model(model, storage, trust_code=trust_code)
    predictions = found.predict(images)
    if csv:
        write_predictions_csv(predictions, csv)
    if html:
        write_gallery(predictions, found.description, html)
    terminal.show_predictions(predictions, as_json)
    if all(each.error for each in predictions):
        raise typer.Exit(1)


def export(
    model: options.Model,
    kind: options.Format = "onnx",
    output: options.OutputFile = None,
    trust_code: options.TrustCode = False,
    storage: options.Storage = "runs",
    as_json: options.AsJson = False,
) -> None:
    """Write a model as one file for other programs, prove that it is equal, and time both."""
    from analysis.deploy import find_model
    from analysis.experiment import model_folder
    from analysis.export import FORMATS, check_format
    from analysis.export import export as run_export
    from cluster.mirror import store_file

    check_format(kind)
    file = output or model_folder(model, storage) / f"model{FORMATS[kind].suffix}"
    terminal.check_parent("--output", file)
    terminal.show_exported(run_export(find_model(model, storage, trust_code=trust_code), kind, file), as_json)
    if output is None:
        store_file(file, file.parent.parent)
