import pickle
import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from foundation import RequestError
from trainables import models
from trainables.learned import _with_weights
from trainables.models import _weights
from trainables.models._layers import ACTIVATIONS, conv_block, pooled_block

HEAD = {"input_size": 32, "dense_units": 8, "dropout": 0.0, "batch_norm": True, "activation": "relu"}
SCRATCH = {"weights": "none", "trainable_layers": 20, "frozen_epochs": 1} | HEAD
CNN = {
    "depth": 2, "filters": 4, "kernel": 3, "dense_layers": 1, "dense_units": 8, "dropout": 0.0, "activation": "relu",
    "batch_norm": False,
}  # fmt: skip


def transfer(architecture="mobilenet_v2", channels=3, **changes):
    return models.build_classifier(
        architecture, (channels, 32, 32), 4, SCRATCH | changes, mean=[1.0] * channels, deviation=[2.0] * channels
    )


def cnn(**changes):
    arguments = {"mean": [0.0], "deviation": [1.0]} | changes
    return models.build_classifier("cnn", (1, 28, 28), 4, CNN, **arguments)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(3)
    return transfer().net.backbone.state_dict()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


# The classifier around every model


def test_images_are_normalised_with_the_given_mean_and_deviation():
    model = models.Classifier(nn.Identity(), mean=[10, 20, 30], deviation=[2, 4, 0.01])
    images = torch.full((1, 3, 2, 2), 30.0)
    assert torch.equal(model(images)[0, :, 0, 0], torch.tensor([10.0, 2.5, 0.0]))
    assert set(model.state_dict()) == {"mean", "deviation"}
    bright = model(images + 1)[0, 2, 0, 0]
    assert bright == 1  # a deviation below one grey level counts as one


def test_unknown_and_missing_knobs_are_named():
    with pytest.raises(TypeError) as error:
        models.build_classifier("cnn", (1, 28, 28), 4, {"depth": 2, "width": 3}, mean=[0], deviation=[1])
    assert str(error.value) == (
        "the knobs of cnn are activation, batch_norm, dense_layers, dense_units, depth, dropout, filters, kernel: "
        "unknown are width, missing are activation, batch_norm, dense_layers, dense_units, dropout, filters, kernel"
    )


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation 'rellu' is not known: did you mean 'relu'"):
        models.build_classifier("cnn", (1, 28, 28), 4, CNN | {"activation": "rellu"}, mean=[0], deviation=[1])


def test_an_unknown_architecture_is_refused():
    with pytest.raises(RequestError, match="architecture 'vgg12' is not known: did you mean 'vgg11'"):
        models.load("vgg12")


def test_batch_norm_takes_the_place_of_the_bias():
    plain, normed = (
        models.build_classifier("cnn", (1, 28, 28), 4, CNN | {"batch_norm": norm}, mean=[0], deviation=[1])
        for norm in (False, True)
    )
    # 4 + 8 filters: a bias each, against a scale and a shift each.
    assert models.count_parameters(normed) - models.count_parameters(plain) == 12


def test_an_ordinary_model_has_nothing_to_freeze():
    model = cnn()
    model.begin_epoch(0)
    assert model.describe_trainable() is None
    assert all(parameter.requires_grad for parameter in model.parameters())


# A user's own architecture, as text


def test_a_users_architecture_is_built_from_its_text():
    source = (
        "from torch import nn\n"
        "def build(image_shape, classes, *, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, classes))\n"
    )
    model = models.build_classifier("mine", (3, 2, 2), 5, {"width": 1}, mean=[0], deviation=[1], source=source)
    assert model(torch.zeros(1, 3, 2, 2)).shape == (1, 5)
    assert models.knobs(models.load("mine", source)) == ("width",)


def test_a_knob_of_ones_own_that_is_called_weights_is_no_file_of_published_ones():
    assert models.weights_at_hand("mine") is None
    domain = {"low": 0.0, "high": 1.0}
    assert _with_weights({"mine": [{"architecture": "mine", "knob": "weights", "domain": domain}]}) == []


def test_layers_that_find_their_size_out_have_it_when_a_model_is_built():
    source = (
        "from torch import nn\n"
        "def build(image_shape, classes):\n"
        "    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(classes))\n"
    )
    model = models.build_classifier("mine", (3, 8, 8), 5, {}, mean=[0], deviation=[1], source=source)
    assert model.training
    assert models.count_parameters(model) == 4 * 27 + 4 + 2 * 4 + 5 * 4 * 36 + 5
    assert model.net[1].num_batches_tracked == 0
    model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1 / 0", "the architecture file mine.py failed: ZeroDivisionError: division by zero"),
        ("def build(:", "the architecture file mine.py failed: SyntaxError"),
        ("x = 1", "the architecture file mine.py failed: AttributeError: .* has no attribute 'build'"),
    ],
)
def test_a_users_architecture_that_fails(source, message):
    with pytest.raises(RequestError, match=message):
        models.load("mine", source)


# Transfer learning


def training_layers(model):
    return {key.rpartition(".")[0] for key, each in model.named_parameters() if each.requires_grad}


def test_layers_train_from_the_end_after_the_frozen_epochs():
    model = transfer(trainable_layers=3, frozen_epochs=2)
    head = {key.rpartition(".")[0] for key, _ in model.named_parameters() if key.startswith("net.head.")}
    last = {f"net.backbone.features.{name}" for name in ("17.conv.3", "18.0", "18.1")}
    assert model.net.trainable_names(1) == ()
    assert model.net.trainable_names(2) == ("features.17.conv.3", "features.18.0", "features.18.1")
    assert training_layers(model) == head  # as built, before any epoch
    for epoch, expected in [(0, head), (1, head), (2, head | last), (9, head | last), (0, head)]:
        model.begin_epoch(epoch)
        assert training_layers(model) == expected


@pytest.mark.parametrize(
    ("layers", "epochs", "sentence"),
    [
        (0, 0, "only the head trains: all 104 layers of the backbone are frozen"),
        (1, 0, "the head and 1 of 104 layers train (features.18.1)"),
        (2, 1, "the head and 2 of 104 layers train (features.18.0 .. features.18.1) from epoch 2 on, before that "
         "only the head"),
        ("all", 0, "the head and 104 of 104 layers train (features.0.0 .. features.18.1)"),
        (5000, 0, "the head and 104 of 104 layers train (features.0.0 .. features.18.1)"),
    ],
)  # fmt: skip
def test_which_layers_train_is_said(layers, epochs, sentence):
    assert transfer(trainable_layers=layers, frozen_epochs=epochs).describe_trainable() == sentence


def test_frozen_batch_norm_keeps_its_statistics():
    model = transfer(trainable_layers=3, frozen_epochs=1)
    model.begin_epoch(0)
    model.train()
    norms = {key: each for key, each in model.named_modules() if isinstance(each, nn.BatchNorm2d)}
    assert not any(norm.training for norm in norms.values())
    before = {key: each.clone() for key, each in model.net.backbone.state_dict().items()}
    images = torch.rand(4, 3, 32, 32) * 255
    model(images)
    assert all(torch.equal(each, before[key]) for key, each in model.net.backbone.state_dict().items())
    assert model.net.head.training
    model.begin_epoch(1)
    assert [key for key, norm in norms.items() if norm.training] == [
        "net.backbone.features.17.conv.3",
        "net.backbone.features.18.1",
    ]
    model(images)
    after = model.net.backbone.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key]) and "running_mean" in key}
    assert moved == {"features.17.conv.3.running_mean", "features.18.1.running_mean"}
    assert not any(module.training for module in model.eval().modules())


def test_grey_is_three_equal_channels_and_normalised_as_the_weights_ask():
    torch.manual_seed(0)
    grey = transfer(channels=1).eval()
    colour = transfer().eval()
    colour.load_state_dict(grey.state_dict())
    images = torch.rand(2, 1, 32, 32) * 255
    with torch.no_grad():
        assert torch.equal(grey(images), colour(images.repeat(1, 3, 1, 1)))
    assert grey.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert grey.deviation.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    with torch.no_grad():
        assert torch.equal(grey.net(images), grey.net(images.repeat(1, 3, 1, 1)))


def test_the_batch_is_resized_to_the_input_size():
    seen = []
    model = transfer(input_size=48)
    model.net.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()
    for side in (28, 48, 97):
        model(torch.full((1, 3, side, side), 123.0))
    assert [tuple(each.shape[-2:]) for each in seen] == [(48, 48)] * 3
    assert all(each.std(dim=(-1, -2)).max() < 1e-4 for each in seen)  # an even image stays even
    stripes = torch.zeros(1, 3, 192, 192)
    stripes[..., ::2] = 255
    model(stripes)
    # Antialiasing averages the stripes; without it they would come out black or white.
    assert seen[-1][0, 0, :, 4:-4].std() < 0.05


@pytest.mark.parametrize(("units", "norm"), [(0, False), (0, True), (8, False), (8, True)])
def test_every_head(units, norm):
    model = transfer(dense_units=units, batch_norm=norm)
    assert model(torch.rand(2, 3, 32, 32) * 255).shape == (2, 4)
    assert any(isinstance(each, nn.BatchNorm1d) for each in model.net.head.modules()) == norm


# Weights


@pytest.mark.parametrize("prefix", ["", "backbone.", "net.backbone.", "model."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_from_a_file(tmp_path, backbone, prefix, suffix):
    # Old files do not count batches; a classifier of other classes may be there too.
    tensors = {prefix + key: each for key, each in backbone.items() if not key.endswith("num_batches_tracked")}
    tensors[f"{prefix}classifier.1.weight"] = torch.zeros(1000, 1280)
    path = tmp_path / f"mine.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    torch.manual_seed(8)
    loaded = transfer(weights=str(path)).net.backbone.state_dict()
    assert all(torch.equal(loaded[key], each) for key, each in backbone.items())


def test_our_own_saved_model_is_a_weights_file(tmp_path, backbone):
    model = transfer()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = transfer(weights=str(tmp_path / "weights.safetensors")).net.backbone.state_dict()
    assert all(torch.equal(loaded[key], each) for key, each in model.net.backbone.state_dict().items())


def test_without_weights_no_file_is_read(no_network):
    knobs = SCRATCH | {"weights": "gone.pth"}
    model = models.build_classifier("mobilenet_v2", (1, 32, 32), 4, knobs, mean=[1], deviation=[1], weights=False)
    assert model.mean.shape == (3, 1, 1)


def refusal(**changes):
    with pytest.raises(RequestError) as error:
        transfer(**changes)
    (problem,) = error.value.problems
    return problem


def test_published_weights_that_cannot_be_had(no_network):
    message = refusal(weights="published")
    assert message.startswith(
        "the published weights of mobilenet_v2 cannot be had: mobilenet_v2-7ebf99e0.pth is not in "
        f"{no_network}, and downloading https://"
    )
    assert message.endswith(
        "failed (<urlopen error no route to host>). Put the file there, name another with --weights FILE, or set "
        "`weights: none` in a --space file to train from scratch"
    )


def test_published_weights_at_hand(no_network, backbone):
    assert models.weights_at_hand("mobilenet_v2") is None
    assert models.weights_at_hand("cnn") is None
    no_network.mkdir(parents=True)
    path = no_network / "mobilenet_v2-7ebf99e0.pth"
    torch.save(backbone, path)
    assert models.weights_at_hand("mobilenet_v2") == path
    loaded = transfer(weights="published").net.backbone.state_dict()
    assert all(torch.equal(loaded[key], each) for key, each in backbone.items())


def test_a_download_is_bounded_and_checked(no_network, monkeypatch, backbone):
    import socket

    seen = []

    def download(url, target, digest, progress):
        seen.append((url.rpartition("/")[2], digest, socket.getdefaulttimeout()))
        torch.save(backbone, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    before = socket.getdefaulttimeout()
    transfer(weights="published")
    transfer(weights="published")  # the second time it is there
    assert seen == [("mobilenet_v2-7ebf99e0.pth", "7ebf99e0", 30)]
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "resnet50", "efficientnet_b0"])
def test_the_published_file_and_normalisation_are_torchvisions(architecture):
    from torchvision.models import get_model_weights

    weights = get_model_weights(architecture).DEFAULT
    model = transfer(architecture)
    source = __import__(f"trainables.models.{architecture}", fromlist=["BACKBONE"]).BACKBONE
    assert weights.url.endswith("/" + source.file)
    assert (model.mean / 255).flatten().tolist() == pytest.approx(weights.transforms().mean)
    assert (model.deviation / 255).flatten().tolist() == pytest.approx(weights.transforms().std)


def test_a_weights_file_that_is_not_there():
    assert refusal(weights="publishd") == (
        "weights 'publishd' is not known: did you mean 'published'? allowed are none, published, or a .safetensors or "
        ".pth file, and there is no file publishd"
    )


def test_a_weights_file_of_another_shape(tmp_path, backbone):
    tensors = {key: each for key, each in backbone.items() if not key.startswith("features.1.")}
    tensors["features.0.0.weight"] = torch.zeros(3, 3)
    torch.save(tensors, tmp_path / "other.pth")
    assert refusal(weights=str(tmp_path / "other.pth")) == (
        f"the weights file {tmp_path / 'other.pth'} does not fit: features.1.conv.0.0.weight is missing; "
        "features.1.conv.0.1.weight is missing; features.1.conv.0.1.bias is missing, and 8 more (of 260 tensors). "
        "If it is of another architecture, name another with --weights FILE, or set `weights: none` in a --space file "
        "to train from scratch"
    )
    torch.save(backbone | {"features.0.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    assert "does not fit: features.0.0.weight is [3, 3] and should be [32, 3, 3, 3] (of" in refusal(
        weights=str(tmp_path / "other.pth")
    )


class _Trap:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    path = tmp_path / "trap.pth"
    torch.save({"features.0.0.weight": _Trap()}, path)
    assert refusal(weights=str(path)) == (
        f"the weights file {path} is not plain tensors, and was not run: save model.state_dict(), with safetensors or "
        "torch.save"
    )
    path.write_bytes(pickle.dumps(_Trap(), protocol=2))
    assert "is not plain tensors, and was not run" in refusal(weights=str(path))
    assert "must never run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\xff" * 100])
def test_a_damaged_weights_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    message = refusal(weights=str(tmp_path / name))
    assert message.startswith(f"the weights file {tmp_path / name} ")
    assert "cannot be read" in message or "is not plain tensors" in message


@pytest.mark.parametrize("content", [{"model": {"a": torch.zeros(1)}}, [torch.zeros(1)]])
def test_a_weights_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "nested.pth")
    assert f"holds a {type(content).__name__} that is not tensors by name: save model.state_dict()" in refusal(
        weights=str(tmp_path / "nested.pth")
    )


def test_torchvision_is_imported_only_for_a_transfer_model():
    import subprocess
    import sys

    code = (
        "import sys; from trainables import models; models.load('resnet50'); models.weights_at_hand('resnet50');"
        "print('torchvision' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert _weights.published_path("x.pth").parent.name == "checkpoints"


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_pooling_before_an_activation_gives_and_teaches_the_same(activation: str, batch_norm: bool) -> None:
    options = {"activation": activation, "batch_norm": batch_norm}
    pooled = nn.Sequential(*pooled_block(3, 8, 3, nn.MaxPool2d(2), **options))
    plain = nn.Sequential(conv_block(3, 8, 3, **options), nn.MaxPool2d(2))
    plain.load_state_dict(pooled.state_dict())
    images = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    outputs = [net(images) for net in (pooled, plain)]
    assert torch.equal(*outputs)
    for output in outputs:
        (output.square().sum() + output.sum()).backward()
    for mine, other in zip(pooled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_a_knob_of_ones_own_that_is_called_weights_gets_what_was_chosen():
    source = (
        "from torch import nn\n"
        "def build(image_shape, classes, *, weights):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, int(weights)), nn.Linear(int(weights), classes))\n"
    )
    around = {"mean": [0], "deviation": [1], "source": source}
    model = models.build_classifier("mine", (3, 8, 8), 5, {"weights": 7}, **around, weights=False)
    assert model.net[1].out_features == 7
    domain = {"options": [1, 2]}
    assert _with_weights({"mine": [{"architecture": "mine", "knob": "weights", "domain": domain}]}) == []
