"""Keeps torch's compiler out of processes that compile nothing."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"


class _Later(ModuleType):
    """Stands in for the compiler: says that nothing is being compiled, and becomes the compiler for all else."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """Return the function as it is: there is nothing to hide it from."""
        return function

    @staticmethod
    def graph_break() -> None:
        """Do nothing: there is no graph."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
            torch._dynamo = importlib.import_module(NAME)
        return getattr(sys.modules[NAME], name)


def leave_compiler_out() -> None:
    """Let torch's optimizers, and its random numbers without values, do without the compiler that they would import.

    They import it to tell it to stay away. That takes 2 s and 90 MB in each process; whoever does compile, as a user's
    own architecture may, gets it all the same. Measured with torch 2.15.
    """
    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = _Later(NAME)
