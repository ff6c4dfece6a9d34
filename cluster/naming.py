"""How an experiment is called: to a user, and on a command line."""

import shlex
import sys
from pathlib import Path

from cluster.remote import store_of


def called(folder: Path) -> str:
    """Return how an experiment is called where its folder is: the address in its store, or the path."""
    store = store_of(folder)
    return store.url if store else str(folder)


def run_argument(folder: Path) -> str:
    """Return how a command line names an experiment: its name in the default storage here, else its path or address."""
    in_default = store_of(folder) is None and folder.parent == Path("runs").resolve()
    return shlex.quote(folder.name if in_default else called(folder))


def command_line() -> str:
    """Return this command as it can be typed again; run from its file, as on a cluster's head, that needs Python."""
    return shlex.join([*(["python"] if sys.argv[0].endswith(".py") else []), *sys.argv])
