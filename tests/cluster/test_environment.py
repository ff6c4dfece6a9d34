import pytest

from cluster.connect import ENVIRONMENT
from cluster.environment import LEFTOVERS, environment_findings


def test_nothing_left_over_is_one_line_that_says_so() -> None:
    [found] = environment_findings({"PATH": "/bin", "HOME": "/root", **ENVIRONMENT}, of_driver=True)
    assert found.state == "ok"


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_changes_things_is_named_with_what_it_does_and_how_to_be_rid_of_it(name: str) -> None:
    [found] = environment_findings({name: "7"}, of_driver=True)
    assert found.state in ("warning", "problem")
    assert found.said.startswith(f"{name}='7': ")
    assert found.remedy == f"unset {name}"


def test_a_value_that_does_nothing_is_not_mentioned() -> None:
    [found] = environment_findings({"OMP_PROC_BIND": "false", "CUDA_LAUNCH_BLOCKING": "0"}, of_driver=True)
    assert found.state == "ok"


def test_what_ray_sets_in_its_workers_is_not_held_against_a_host() -> None:
    [found] = environment_findings({"CUDA_VISIBLE_DEVICES": "", "RAY_ADDRESS": "x"}, of_driver=False)
    assert found.state == "ok"
    assert len(environment_findings({"CUDA_VISIBLE_DEVICES": "", "RAY_ADDRESS": "x"}, of_driver=True)) == 2


def test_ones_own_setting_of_a_switch_of_ours_is_a_warning() -> None:
    [found] = environment_findings({"RAY_CHDIR_TO_TRIAL_DIR": "1"}, of_driver=True)
    assert found.state == "warning"
    assert "'1'" in found.said
    assert "'0'" in found.said


def test_planted_faults_are_told_and_no_reason_to_refuse() -> None:
    [found] = environment_findings({"CONVSCOUT_FAULT": "trial.begin:kill:1"}, of_driver=False)
    assert (found.state, "planted for tests" in found.said) == ("warning", True)
