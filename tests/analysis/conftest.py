"""The example analysis, made once, and a copy of it for a test to change."""

import copy
from typing import Any

import pytest
from example_analysis import example_analysis


@pytest.fixture(scope="session")
def example() -> dict[str, Any]:
    return example_analysis()


@pytest.fixture
def analysis(example: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(example)
