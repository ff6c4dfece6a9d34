"""The options of the command line, each with its help, that several commands share or that fill one."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Data = Annotated[str, Argument(help="A folder, zip, tar or CSV of images, or digits, cifar10, mnist, ...")]
DataOrConfig = Annotated[str | None, Argument(help="As for `convscout data`; may stand in --config instead")]
DataToCheck = Annotated[str | None, Argument(help="As for `convscout data`, to be looked at too")]
ClusterFile = Annotated[Path | None, Option(help="The YAML file of a Ray cluster to check, offline")]
Run = Annotated[str, Argument(help="An experiment: its name in --storage, or its folder")]
Trial = Annotated[int, Argument(help="The number of a trial, as `convscout show` lists it")]
Architecture = Annotated[str | None, Argument(help="An architecture, or the path of one of your own")]
Model = Annotated[str, Argument(help="A model folder, or an analysed experiment")]
Images = Annotated[list[Path], Argument(help="Image files, or folders of them")]

Storage = Annotated[str, Option(help="The folder that holds the experiments")]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of a table")]
Quiet = Annotated[bool, Option("--quiet", help="No live table")]

ImageSize = Annotated[int | None, Option(help="Side in pixels, 28 to 224")]
Resize = Annotated[str | None, Option(help="squash (default), or crop to the centre square")]
ValFraction = Annotated[float | None, Option(help="Held out of training, unless DATA has val/ (default 0.15)")]
TestFraction = Annotated[float | None, Option(help="Held out for the test, unless DATA has test/ (default 0.2)")]
Duplicates = Annotated[
    str | None, Option(help="Images of val and test that train has too: leave_out (default), or keep")
]
DataPage = Annotated[Path | None, Option("--html", help="Write a page with images of every class, that works offline")]

Arch = Annotated[list[str] | None, Option(help="Architecture, or a .py file of your own (repeatable)")]
Method = Annotated[str | None, Option(help="random, grid, asha, tpe or tpe_asha (default)")]
Trials = Annotated[int | None, Option(help="Trials in all, dealt out evenly (default 20)")]
MoreTrials = Annotated[str | None, Option("--trials", help="+20 for twenty more, 60 for sixty in all")]
Epochs = Annotated[int | None, Option(help="The most epochs of a trial (default 20)")]
GraceImages = Annotated[
    float | None,
    Option(help="Train on such a share of the images, 0.2 to below 1, up to the first rung (asha, tpe_asha)"),
]
Patience = Annotated[int | None, Option(help="End a trial after so many epochs without lower val_loss")]
TimeBudget = Annotated[
    str | None, Option(help="Such as 90s, 10m, 1h30m; over all resumes; TPE then begins with what is cheap")
]
Metric = Annotated[str | None, Option(help="val_accuracy (default), val_loss, ...")]
Seed = Annotated[int | None, Option(help="Of the proposals and the trainings (default 0)")]
Name = Annotated[str | None, Option(help="Of the experiment (default: from DATA)")]
StorageOrConfig = Annotated[str | None, Option(help="The folder that holds the experiments (default runs)")]
SpaceFile = Annotated[str | None, Option(help="YAML file that narrows, widens or fixes hyperparameters")]
Weights = Annotated[str | None, Option(help="Pretrained weights of transfer models: a file, or none")]
CpusPerTrial = Annotated[int | None, Option(help="CPU cores of a trial")]
GpusPerTrial = Annotated[str | None, Option(help="GPUs of a trial, a share of one, or auto: measured (default 1)")]
MaxConcurrent = Annotated[int | None, Option(help="The most trials side by side")]
Address = Annotated[str | None, Option(help="Of a Ray cluster (default: this machine, or as before)")]
Precision = Annotated[str | None, Option(help="auto (default: measured), fp32 (TF32 on GPUs) or bf16")]
CheckpointEvery = Annotated[str | None, Option(help="How much training a kill may cost a trial (default 30s)")]
EpochTimeout = Annotated[
    str | None, Option(help="An epoch that takes longer has hung (default: 10 times the trial's longest)")
]
ConfigFile = Annotated[str | None, Option(help="YAML file with these options as keys")]

Submitted = Annotated[list[str], Argument(metavar="[CLUSTER.yaml] -- COMMAND", help="The cluster, and what runs")]
JobAddress = Annotated[str | None, Option("--job", help="Through `ray job submit` to this dashboard, without a file")]
PrintOnly = Annotated[bool, Option("--print", help="Only print the line of Ray that does it, quoted for a shell")]

Finalists = Annotated[int, Option(help="How many of the best configurations go on, baselines among them counted")]
Seeds = Annotated[int, Option(help="Runs of each contender, each with a fresh seed")]
Folds = Annotated[int, Option(help="Choose the epochs by cross-validation with so many folds; 0: none")]
Ablate = Annotated[
    list[str] | None, Option(help="A knob of the winner to retrain with its other values, one at a time; repeatable")
]
RetrainWorkers = Annotated[int, Option(help="Workers that train each final model together, a GPU or slot each")]
PricePerHour = Annotated[float | None, Option(min=0, help="Of all the machines together: what it would cost")]
ReopenTest = Annotated[bool, Option(help="Open the test images again for other models")]
CsvFile = Annotated[Path | None, Option(help="Write the table with every class's probability to a file")]
HtmlFile = Annotated[Path | None, Option(help="Write a page that shows the images with their classes")]
Format = Annotated[str, Option("--format", help="onnx, or torch for a .pt2 of torch.export")]
OutputFile = Annotated[Path | None, Option(help="The file to write (default: model.onnx or model.pt2 in its folder)")]
TrustCode = Annotated[bool, Option("--trust-code", help="Run the architecture.py that a model folder brings along")]
Port = Annotated[int, Option(help="Port on this machine")]
