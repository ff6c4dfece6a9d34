"""The mirror of an experiment in an object store, what workers keep there, and what is refused at the start."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import lock, mirror, remote
from cluster.history import History
from cluster.ledger import Ledger
from cluster.lock import Lock, file_system, holder
from cluster.mirror import fetch, fetch_checkpoint, fetch_validated, store_file
from cluster.remote import Remote, checked_url, mirror_folder, store_of
from cluster.retention import Retention
from cluster.storage import experiment_folder, find_run, list_runs
from cluster.tensorboard import tensorboard_command
from cluster.trial_store import trial_store
from foundation import RequestError

pytestmark = pytest.mark.timeout(120)


def test_what_has_changed_is_stored_and_fetched_and_nothing_else(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = experiment_folder(s3, "digits")
    events, stored = folder / "trials" / "0000" / "events.out.tfevents.1", Remote(s3).under("digits")
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="digits", trials=1)
        for file in (folder / "trials.csv", events, events.parent / "checkpoint" / "a01-e0001" / "state.pt"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("first")
        (events.parent / "val_correct.bits").write_text("the driver's, which is older than the worker's")
    names = {name for name in stored.objects(deep=True) if not name.startswith("ledger/")}
    assert names == {"trials.csv", "trials/0000/events.out.tfevents.1"}

    here, fetched, put = os.environ["CONVSCOUT_CACHE"], [], []
    monkeypatch.setattr(Remote, "fetch", _noting(Remote.fetch, fetched, 1))
    monkeypatch.setattr(Remote, "store", _noting(Remote.store, put, 2))
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path))
    there = experiment_folder(s3, "digits")
    assert (there / "trials.csv").read_text() == "first"
    assert not (there / events.relative_to(folder)).exists()
    with Ledger(there):  # who writes has everything
        assert (there / events.relative_to(folder)).read_text() == "first"
        (there / events.relative_to(folder)).rename(there / "trials" / "0000" / "events.out.tfevents.2")
        (there / "trials.csv").write_text("second")
    assert sorted(put) == ["trials.csv", "trials/0000/events.out.tfevents.2"]

    monkeypatch.setenv("CONVSCOUT_CACHE", here)
    fetched.clear()
    fetch(folder, "")
    assert sorted(fetched) == ["trials.csv", "trials/0000/events.out.tfevents.2"]
    assert (folder / "trials.csv").read_text() == "second"
    assert not events.exists()
    fetch(folder, "")
    assert len(fetched) == 2


def _noting(method: object, names: list[str], at: int) -> object:
    def noted(*arguments: object) -> object:
        names.append(str(arguments[at]))
        return method(*arguments)  # type: ignore[operator]

    return noted


def test_an_old_export_does_not_come_back_beside_a_new_model(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = experiment_folder(s3, "digits")
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="digits", trials=1)
        (folder / "model").mkdir()
        for name in ("weights.safetensors", "model.onnx"):
            (folder / "model" / name).write_text("first")
    (folder / "model" / "model.pt2").write_text("first")
    store_file(folder / "model" / "model.pt2", folder)  # an export, some time later
    here = os.environ["CONVSCOUT_CACHE"]
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "reader"))
    reader = experiment_folder(s3, "digits")
    fetch(reader, "model")
    assert (reader / "model" / "model.pt2").exists()
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "other"))
    there = experiment_folder(s3, "digits")
    with Ledger(there):
        for name in ("model.onnx", "model.pt2"):
            (there / "model" / name).unlink()
        (there / "model" / "weights.safetensors").write_text("second")
    monkeypatch.setenv("CONVSCOUT_CACHE", here)
    with Ledger(folder):  # whose mirror still has what the other host removed
        pass
    fetch(reader, "model")
    for mirrored in (folder, reader):
        found = {file.name: file.read_text() for file in (mirrored / "model").iterdir()}
        assert found == {"weights.safetensors": "second"}


def test_a_file_changed_here_is_not_overwritten_by_the_object_it_came_from(s3: str) -> None:
    folder = experiment_folder(s3, "digits")
    Remote(s3).write("digits/report.html", b"drawn")
    fetch(folder)
    (folder / "report.html").write_text("drawn again, and longer")
    fetch(folder)
    assert (folder / "report.html").read_text() == "drawn again, and longer"
    store_file(folder / "report.html", folder)
    assert Remote(s3).read("digits/report.html") == b"drawn again, and longer"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_an_object_whose_name_leads_out_of_the_mirror_is_not_fetched(s3: str) -> None:
    folder, store = experiment_folder(s3, "digits"), pytest.importorskip("boto3").client("s3")
    prefix = s3.removeprefix("s3://trials/")
    for name in ("../out", "trials/../../out", "trials/./same", "trials/0000/val_correct.bits"):
        store.put_object(Bucket="trials", Key=f"{prefix}/digits/{name}", Body=b"x")
    assert set(Remote(s3).under("digits").objects(deep=True)) == {"trials/0000/val_correct.bits"}
    fetch(folder, "")
    fetch_validated(folder, "trials")
    assert [path.name for path in folder.rglob("*") if path.is_file() and path.name[0] != "."] == ["val_correct.bits"]
    assert not (folder.parent / "out").exists()


def test_a_reader_leaves_the_mirror_alone_that_is_being_written(s3: str) -> None:
    folder = experiment_folder(s3, "digits")
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="digits", trials=1)
        Remote(s3).write("digits/trials.csv", b"someone else's")
        find_run("digits", s3)
        assert not (folder / "trials.csv").exists()


def test_a_trial_goes_on_in_another_process_with_what_was_stored(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiment_folder(s3, "digits")
    store = trial_store(folder)
    assert store
    here = store.begin("trials/0007")
    assert here == store.folder / "trials" / "0007"
    for epoch in (1, 2, 3):
        path = here / "checkpoint" / f"a01-e{epoch:04d}"
        path.mkdir(parents=True)
        (path / "state.pt").write_text(f"state {epoch}")
        (path / "manifest.json").write_text("{}")
        store.keep_checkpoint(path)
        if epoch == 2:
            (here / "checkpoint" / "a01-e0001" / "state.pt").unlink()
            (here / "checkpoint" / "a01-e0001" / "manifest.json").unlink()
            (here / "checkpoint" / "a01-e0001").rmdir()
    (here / "val_correct.bits").write_text("bits")
    store.keep_file(here / "val_correct.bits")
    stored = Remote(s3).under("digits/trials/0007")
    assert stored.folders("checkpoint") == ["checkpoint/a01-e0002", "checkpoint/a01-e0003"]

    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # above any: the other process is dead, then
    other = trial_store(folder)
    assert other
    assert other.folder != here.parent.parent
    there = other.begin("trials/0007")
    assert (there / "checkpoint" / "a01-e0003" / "state.pt").read_text() == "state 3"
    assert (there / "val_correct.bits").read_text() == "bits"
    other.clear()
    assert not other.folder.exists()
    monkeypatch.undo()


def test_the_driver_gets_what_workers_stored_and_removes_what_is_of_no_use(s3: str) -> None:
    folder = experiment_folder(s3, "digits")
    stored = Remote(s3).under("digits")
    for trial in (0, 1):
        stored.write(f"trials/{trial:04d}/val_correct.bits", b"bits")
        stored.write(f"trials/{trial:04d}/checkpoint/a01-e0001/state.pt", b"state")
    fetch_validated(folder, "trials")
    assert (folder / "trials" / "0001" / "val_correct.bits").read_bytes() == b"bits"
    fetch_checkpoint(folder, "trials/0001")
    assert (folder / "trials" / "0001" / "checkpoint" / "a01-e0001" / "state.pt").read_bytes() == b"state"
    history = History()
    history.apply({"seq": 1, "time": 0.0, "incarnation": 1, "event": "experiment", "name": "digits", "trials": 2})
    about = {"architecture": "cnn", "config": {}, "seed": 0, "method": "random", "work": {"epochs": 9}}
    history.apply({"seq": 2, "time": 0, "incarnation": 1, "event": "proposed", "trial": 0, "role": "search", **about})
    retention = Retention(folder, history, "val_accuracy")  # trial 0 is live, 1 is unknown
    retention.close()
    assert not (folder / "trials" / "0001" / "checkpoint").exists()
    assert set(stored.objects("trials", deep=True)) == {
        "trials/0000/val_correct.bits",
        "trials/0000/checkpoint/a01-e0001/state.pt",
        "trials/0001/val_correct.bits",
    }


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("s4://trials/runs", r"protocol 's4' is not known: did you mean 's3'\? allowed are gs, s3, or a folder's path"),
        ("file:///runs", "protocol 'file' is not known: allowed are gs, s3, or a folder's path"),
        ("s3://", "write s3://BUCKET/FOLDER, of letters"),
        ("s3://trials/../other", "write s3://BUCKET/FOLDER, of letters"),
        ("s3://trials/a*b", "write s3://BUCKET/FOLDER, of letters"),
        ("s3://trials//runs", "write s3://BUCKET/FOLDER, of letters"),
    ],
)
def test_addresses_that_cannot_be_meant_are_refused(storage: str, said: str) -> None:
    pytest.importorskip("s3fs")
    for ask in (lambda: experiment_folder(storage, "x"), lambda: find_run("x", storage), lambda: list_runs(storage)):
        with pytest.raises(RequestError, match=said):
            ask()


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PACKAGES", {"s3": "no_such_package", "gs": "no_such_package"})
    with pytest.raises(RequestError, match=r"needs the package no_such_package.*pip install 'convscout\[gcs\]'"):
        checked_url("gs://trials/runs")


def test_a_bucket_that_is_not_there_is_said(s3: str) -> None:
    for ask in (lambda: experiment_folder("s3://none/x", "x"), lambda: list_runs("s3://none/x")):
        with pytest.raises(RequestError, match=r"s3://none/x cannot be used \(there is no such bucket\): make the"):
            ask()


def test_no_credentials_and_a_server_that_is_not_there_are_said(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = "import sys; from cluster.storage import experiment_folder; experiment_folder(sys.argv[1], 'x')"
    without = {name: value for name, value in os.environ.items() if "KEY" not in name} | {"HOME": str(tmp_path)}
    nowhere = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    for environment, said in ((without, "Unable to locate credentials): set AWS_ACCESS_KEY_ID and"), (nowhere, ":9")):
        done = subprocess.run(
            [sys.executable, "-c", script, s3],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert said in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("foundation.RequestError")


@pytest.fixture
def read_only(s3: str, s3_process: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a storage that the key in the environment may only read."""
    boto3 = pytest.importorskip("boto3")
    with s3_process(INITIAL_NO_AUTH_ACTION_COUNT="4") as address:  # type: ignore[operator]
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        boto3.client("s3").create_bucket(Bucket="trials")
        users = boto3.client("iam")
        users.create_user(UserName="reader")
        allowed = [{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:HeadBucket", "s3:GetObject"], "Resource": "*"}]
        policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        users.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        key = users.create_access_key(UserName="reader")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        system = pytest.importorskip("s3fs").S3FileSystem
        system.clear_instance_cache()  # or fsspec goes on with the server and the key of before
        yield "s3://trials/runs"
        system.clear_instance_cache()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_a_key_that_may_only_read_is_said(read_only: str) -> None:
    with pytest.raises(RequestError, match=r"\(Access Denied\): the key must be allowed to list, read, write and"):
        experiment_folder(read_only, "x")


def test_a_store_that_lets_two_writers_make_an_object_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "create", Remote.write)
    with pytest.raises(RequestError, match=r"lets two writers make the same object \(no If-None-Match\)"):
        experiment_folder(s3, "x")
    assert Remote(s3).objects(deep=True) == {}


def test_servers_have_mirrors_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path))
    found = set()
    for address in ("http://one", "http://two"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        folder = mirror_folder("s3://trials/runs")
        store = store_of(folder / "digits")
        assert store
        assert store.url == "s3://trials/runs/digits"
        found.add(folder)
    assert len(found) == 2
    assert store_of(tmp_path / "digits") is None
    fetch(tmp_path / "digits", "trials")
    assert not (tmp_path / "digits").exists()


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/data /mnt/data nfs4 rw 0 0
/dev/vdb /mnt/data/fast xfs rw 0 0
server:/two /mnt/two\\040words nfs rw 0 0
odd
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/runs", "ext4"),
        ("/mnt/data", "nfs4"),
        ("/mnt/data/runs", "nfs4"),
        ("/mnt/database", "ext4"),
        ("/mnt/data/fast/runs", "xfs"),
        ("/mnt/two words/runs", "nfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind
    assert bool(lock.NETWORK_FILE_SYSTEMS.fullmatch(kind)) == kind.startswith("nfs")


def test_a_network_file_system_has_a_lease_in_place_of_an_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/runs {tmp_path}/net nfs4 rw 0 0\n")
    monkeypatch.setattr(lock, "MOUNTS", mounts)
    folder = tmp_path / "net" / "digits"
    held = Lock(folder)
    assert held.lease
    assert [path.name for path in folder.iterdir()] == ["lease"]
    assert holder(folder) == os.getpid()
    with pytest.raises(RequestError, match=rf"digits is in use by host .*, pid {os.getpid()}"):
        Lock(folder)
    monkeypatch.setattr("cluster.lease.is_dead", lambda _: None)
    monkeypatch.setattr(lock, "is_dead", lambda _: None)
    with pytest.raises(RequestError, match=r"is in use on another host \(host .*, pid \d+, since .*\): stop it there"):
        holder(folder)
    held.release()
    assert not folder.exists()
    monkeypatch.undo()
    monkeypatch.setattr(lock, "MOUNTS", mounts)
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="digits", trials=1)
    assert holder(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.jsonl"]


def test_a_mirror_is_kept_fetched_while_it_is_looked_at(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiment_folder(s3, "digits")
    monkeypatch.setattr(mirror, "STORE_SECONDS", 0.01)
    fetched = threading.Event()
    original = mirror.fetch_files

    def fetch_files(*arguments: object) -> object:
        found = original(*arguments)  # type: ignore[arg-type]
        if (folder / "trials" / "events").exists():
            fetched.set()
        return found

    monkeypatch.setattr(mirror, "fetch_files", fetch_files)
    with mirror.kept_fetched(folder, "trials"):
        Remote(s3).write("digits/trials/events", b"new")
        assert fetched.wait(60)


def test_tensorboard_looks_for_files_that_were_put_in_the_place_of_others(s3: str, tmp_path: Path) -> None:
    mirrored = tensorboard_command(experiment_folder(s3, "digits"))
    assert mirrored[-2:] == ["--detect_file_replacement", "true"]
    assert "--detect_file_replacement" not in tensorboard_command(tmp_path)
