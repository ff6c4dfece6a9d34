"""Whatever is asked for gives a request that survives JSON, or a RequestError; never anything else."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation import RequestError
from search.spec import SearchSpec, checked_spec, make_spec

FIELDS = sorted(SearchSpec.model_fields)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**7),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["10m", "1h", "0"]),
)
VALUES = st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(st.text(max_size=5), PLAIN, max_size=2))
ASKED = st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=8)), VALUES, max_size=6)


@settings(max_examples=150, deadline=None)
@given(asked=ASKED)
def test_any_dictionary_is_a_request_or_refused(asked: dict[str, Any]) -> None:
    try:
        spec = checked_spec({"data": "digits", "name": "x"} | asked)
    except RequestError:
        return
    again = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert checked_spec(again) == spec


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=80), ASKED.map(lambda asked: yaml.safe_dump(asked, allow_unicode=True))))
def test_any_config_file_is_a_request_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "search.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with suppress(RequestError):
            make_spec({"data": "digits"}, str(path))


def test_yaml_that_would_run_code_or_fill_memory_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    wanted = {
        f"!!python/object/apply:pathlib.Path.touch [{marker}]": "could not determine a constructor",
        bomb: "line 2: aliases \\(\\*name\\) are not read",
        "[" * 100_000: "nested too deeply",
        "trials: 3\ntrials: 4": "trials is there twice, again in line 2",
        "x" * 1_000_001: "has 1,000,001 bytes: at most 1,000,000 are read",
    }
    for text, message in wanted.items():
        (tmp_path / "search.yaml").write_text(text)
        with pytest.raises(RequestError, match=message) as caught:
            make_spec({"data": "digits"}, str(tmp_path / "search.yaml"))
        assert len(str(caught.value)) < 1000
    assert not marker.exists()
