"""How a command that goes on is written."""

import pytest

from cluster.naming import command_line


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["convscout", "analyze", "my run"], "convscout analyze 'my run'"),
        (["/opt/bin/convscout", "analyze", "x"], "/opt/bin/convscout analyze x"),
        (["convscout.py", "analyze", "x"], "python convscout.py analyze x"),  # as `ray submit` runs it
    ],
)
def test_a_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch, argv: list[str], typed: str) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert command_line() == typed
