"""Runs a script that needs Ray in a process of its own: where Ray has been, no test can fork a driver any more."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[2]


def said_by(script: str, folder: Path, *arguments: str, seconds: float, **environment: str) -> Any:
    """Return what the script's last line says, in JSON; AssertionError where it fails or takes longer.

    No variable of Ray's is passed on but those in `environment`.
    """
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=HOUSE,
        env={**inherited, "PYTHONPATH": str(HOUSE), "RAY_AUTH_MODE": "disabled", **environment},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
