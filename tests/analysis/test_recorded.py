"""The report of a small experiment that was really run: 8 trials on digits, analysed with one ablation."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.page import Section
from analysis.protocol import FORMAT
from analysis.report import render
from analysis.sections import build_sections


@pytest.fixture
def recorded() -> dict[str, Any]:
    packed = Path(__file__).with_name("recorded_analysis.json.gz").read_bytes()
    analysis: dict[str, Any] = json.loads(gzip.decompress(packed))
    return analysis


def test_every_section_of_a_real_experiment_can_be_made(recorded: dict[str, Any]) -> None:
    assert recorded["format"] == FORMAT
    sections = build_sections(recorded)
    assert [title for title, content in sections.items() if content.kind == "failed"] == []
    waiting = {title: content for title, content in sections.items() if content.kind == "not yet"}
    assert set(waiting) <= {"Could still win", "What mattered"}  # too few trials ran to the end
    summary = sections["Summary"]
    assert isinstance(summary, Section)
    assert summary.sentences[0].startswith("Test accuracy ")
    assert len(summary.sentences) <= 10
    assert len(render(recorded)) > 1_000_000


@pytest.mark.parametrize("lost", ["contenders", "chosen", "comparisons", "learned", "ablations", "worst", "troubles"])
def test_what_an_interrupted_analysis_lacks_fails_no_section(recorded: dict[str, Any], lost: str) -> None:
    partial = copy.deepcopy(recorded)
    del partial[lost]
    assert [title for title, content in build_sections(partial).items() if content.kind == "failed"] == []
