import json
from pathlib import Path

import pytest

from cluster.lease import LEASES
from cluster.ledger import Ledger
from cluster.lock import LOCK, Lock
from cluster.naming import run_argument
from cluster.storage import (
    checkpoint_folder,
    experiment_folder,
    find_run,
    list_runs,
    read_experiment,
    trial_folder,
    versions,
    write_experiment,
)
from foundation import RequestError


def test_the_folder_of_an_experiment_is_shown_to_be_writable_and_nothing_is_left_behind(tmp_path: Path) -> None:
    assert experiment_folder(str(tmp_path / "runs"), "first") == tmp_path / "runs" / "first"
    assert list(tmp_path.iterdir()) == []
    assert trial_folder(tmp_path, 7) == tmp_path / "trials" / "0007"
    assert checkpoint_folder(tmp_path, 7) == tmp_path / "trials" / "0007" / "checkpoint"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "white space", "x" * 101, "-x"])
def test_names_that_are_no_plain_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="use letters, digits"):
        experiment_folder(str(tmp_path), name)


def test_storage_under_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        RequestError, match=r"cannot be written \(Not a directory\): give another folder with --storage"
    ):
        experiment_folder(str(tmp_path / "file"), "x")


def test_a_command_names_an_experiment_as_it_can_be_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_argument(tmp_path / "runs" / "digits") == "digits"
    assert run_argument(tmp_path / "my runs" / "digits") == f"'{tmp_path}/my runs/digits'"


def test_runs_are_found_by_name_or_path_and_a_typo_gets_its_neighbour(tmp_path: Path) -> None:
    for name in ("digits", "photos"):
        (tmp_path / name).mkdir()
        Ledger(experiment_folder(str(tmp_path), name)).close()
    assert [folder.name for folder in list_runs(str(tmp_path))] == ["digits", "photos"]
    assert find_run("digits", str(tmp_path)) == find_run(str(tmp_path / "digits"), "elsewhere")
    with pytest.raises(RequestError, match="experiment 'digit' is not known: did you mean 'digits'"):
        find_run("digit", str(tmp_path))
    with pytest.raises(RequestError, match=r"is not known: .*nothing does not exist\. `convscout search` makes one"):
        find_run("digits", str(tmp_path / "nothing"))
    with pytest.raises(RequestError, match=r"--storage .*nothing: .* is no folder"):
        list_runs(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no experiments"):
        find_run("digits", str(tmp_path / "empty"))


def test_one_that_has_not_begun_is_found_by_who_asks_for_it_while_somebody_holds_it(tmp_path: Path) -> None:
    (tmp_path / "leased" / LEASES).mkdir(parents=True)  # on a network's file system
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / LOCK).touch()
    lock = Lock(tmp_path / "decodes")
    try:
        for name in ("leased", "decodes"):
            assert find_run(name, str(tmp_path), not_begun=True) == tmp_path / name
            with pytest.raises(RequestError, match="is not known"):
                find_run(name, str(tmp_path))
        with pytest.raises(RequestError, match="is not known"):
            find_run("left", str(tmp_path), not_begun=True)
    finally:
        lock.release()


def test_experiment_json_must_be_there_and_of_this_format(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"experiment\.json cannot be read"):
        read_experiment(tmp_path)
    (tmp_path / "experiment.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RequestError, match="has format 99; this version reads 3"):
        read_experiment(tmp_path)
    write_experiment(tmp_path, {"format": 3, "name": "x"})
    assert read_experiment(tmp_path)["name"] == "x"


def test_versions_name_what_results_depend_on() -> None:
    assert {"python", "ray", "torch", "torchvision", "numpy"} <= set(versions())
    assert versions()["ray"].startswith("2.60")
