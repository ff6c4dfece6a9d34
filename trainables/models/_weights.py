"""Weights of a backbone from a file: published ones by torchvision, or any file a user names. Nothing is executed."""

import pickle
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from foundation import RequestError, unknown_word

_DOWNLOAD_TIMEOUT_SECONDS = 30
_PREFIXES = ("net.backbone.", "backbone.", "model.")
_REMEDY = "name another with --weights FILE, or set `weights: none` in a --space file to train from scratch"


def published_path(file_name: str) -> Path:
    """Return where torchvision's hub cache keeps a file of published weights, whether it is there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file_name


def published_file(architecture: str, file_name: str, url: str) -> Path:
    """Return the file of published weights, downloaded into the hub cache if it is not there yet.

    A download is checked against the hash in the file's name. RequestError if it cannot be had.
    """
    path = published_path(file_name)
    if path.is_file():
        return path
    digest = re.search(r"-([0-9a-f]{8,})\.", file_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _network_timeout(_DOWNLOAD_TIMEOUT_SECONDS):
            torch.hub.download_url_to_file(url, str(path), digest and digest.group(1), progress=False)
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"the published weights of {architecture} cannot be had: {file_name} is not in {path.parent}, and "
            f"downloading {url} failed ({error}). Put the file there, {_REMEDY}"
        ) from error
    return path


def read_weights(source: str) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a torch file that holds nothing but tensors by name.

    RequestError if the file is missing, damaged, or holds anything else; its code is never run.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        known = unknown_word("weights", source, ("published", "none"))
        raise RequestError(f"{known}, or a .safetensors or .pth file, and there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RequestError(
            f"the weights file {path} is not plain tensors, and was not run: save model.state_dict(), with "
            "safetensors or torch.save"
        ) from error
    except Exception as error:  # a damaged file fails in many ways, safetensors with a type of its own
        raise RequestError(f"the weights file {path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise RequestError(
            f"the weights file {path} holds a {type(content).__name__} that is not tensors by name: "
            "save model.state_dict()"
        )
    return dict(content)


def load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy the tensors into the backbone; those it has no place for, such as a classifier's, are left out.

    Names may begin with "backbone.", "net.backbone." or "model.". RequestError names the first tensors that are
    missing or of another shape.
    """
    found = {_without_prefix(name): tensor for name, tensor in tensors.items()}
    # Files from before 2018 do not count the batches that a batch norm saw; nothing depends on that count.
    own = {key: value for key, value in backbone.state_dict().items() if not key.endswith("num_batches_tracked")}
    wrong = [f"{name} is missing" for name in own if name not in found]
    wrong += [
        f"{name} is {list(found[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RequestError(
            f"the weights file {source} does not fit: {'; '.join(wrong[:3])}{more} (of {len(own)} tensors). "
            f"If it is of another architecture, {_REMEDY}"
        )
    backbone.load_state_dict({name: found[name] for name in own}, strict=False)


def _without_prefix(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Bound each wait for the network: torch's download has no limit of its own, and a firewall may say nothing."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
