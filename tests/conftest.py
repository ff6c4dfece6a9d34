"""What several rooms' tests share: generated images that can be learned, and a cache of them."""

import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

MakeImages = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """Let all tests but those of GPUs run on the CPU, on every machine: they compare bits and count slots."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _gpu(request: pytest.FixtureRequest) -> None:
    """Skip a test that needs a GPU where there is none."""
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="session", autouse=True)
def _own_image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's image cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVSCOUT_CACHE", str(tmp_path_factory.mktemp("image-cache")))
        yield


@pytest.fixture(scope="session")
def make_images() -> MakeImages:
    """Return a function that fills a folder with stripes: each class has its own direction, so it can be learned."""

    def make(folder: Path, *, classes: int = 3, per_class: int = 40, size: int = 28, channels: int = 3) -> Path:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[0:size, 0:size]
        for number in range(classes):
            angle = np.pi * number / classes
            (folder / f"class{number}").mkdir(parents=True, exist_ok=True)
            for image in range(per_class):
                phase = rng.uniform(0, 2 * np.pi)
                wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.9 + phase) * 80 + 128
                noisy = wave[..., None] + rng.normal(0, 25, (size, size, channels))
                path = folder / f"class{number}" / f"{image:03d}.png"
                cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8).squeeze())
        return folder

    return make


@pytest.fixture(scope="session")
def striped(make_images: MakeImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 3 classes with 40 coloured images of 28 x 28 each."""
    return make_images(tmp_path_factory.mktemp("data") / "striped")


MOTO = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server._server.server_port, flush=True)
input()
"""


EMULATOR = """
import socket
from gcp_storage_emulator.server import create_server
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = create_server("127.0.0.1", port, in_memory=True, default_bucket="trials")
server.start()
print(port, flush=True)
input()
"""


@contextmanager
def _server(script: str, **environment: str) -> Iterator[str]:
    """Yield the address of a server on this machine, a process of its own that prints its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _s3_process(**environment: str) -> Iterator[str]:
    """Yield the address of an S3 server, a process of its own on this machine."""
    pytest.importorskip("s3fs", reason="needs the extra dev: s3fs is not installed")
    pytest.importorskip("moto", reason="needs the extra dev: moto is not installed")
    with _server(MOTO, **environment) as address:
        yield address


@pytest.fixture
def s3_process() -> Callable[..., AbstractContextManager[str]]:
    """Return what starts another S3 server, with variables for its environment."""
    return _s3_process


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Return the address of a real S3 server with a bucket `trials`."""
    with _s3_process() as address:
        request = urllib.request.Request(f"{address}/trials", method="PUT")
        urllib.request.urlopen(request, timeout=60).close()
        yield address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a storage of its own on the S3 server, with the environment that leads there."""
    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "CONVSCOUT_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://trials/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def gs_server() -> Iterator[str]:
    """Return the address of an emulator of Google's storage with a bucket `trials`."""
    pytest.importorskip("gcsfs", reason="needs the extra dev: gcsfs is not installed")
    pytest.importorskip("gcp_storage_emulator", reason="needs the extra dev: gcp-storage-emulator is not installed")
    with _server(EMULATOR) as address:
        yield address


@pytest.fixture
def gs(gs_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a storage of its own on the emulator, with the environment that leads there."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_server)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return f"gs://trials/{uuid.uuid4().hex[:12]}"
