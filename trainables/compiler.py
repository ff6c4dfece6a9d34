"""Keeps torch's compiler out of processes that compile nothing."""

import importlib
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

COMPILER, SYMBOLS = "torch._dynamo", "torch.fx.experimental.symbolic_shapes"
_UTILITIES = f"{COMPILER}.utils"


class _Later(ModuleType):
    """Stands in for a module of torch that it asks a few questions, and becomes that module for all else."""

    def __init__(self, name: str, answers: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(name)
        vars(self).update(answers)

    def __getattr__(self, name: str) -> Any:
        # `inspect` asks every module for its file, and an import from one for its path.
        if name.startswith("__") and (name, self.__name__) != ("__path__", COMPILER):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> ModuleType:
    """Return a module of torch itself, imported now if it was left out until now."""
    if isinstance(sys.modules.get(name), _Later):
        del sys.modules[name]
        parent, _, own = name.rpartition(".")
        setattr(sys.modules[parent], own, importlib.import_module(name))
    return sys.modules[name]


def _left_out(name: str, answers: Mapping[str, Callable[..., Any]]) -> None:
    if name not in sys.modules:
        parent, _, own = name.rpartition(".")
        sys.modules[name] = _Later(name, answers)
        setattr(importlib.import_module(parent), own, sys.modules[name])


def _same(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    """Return the function as it is: there is no compiler to hide it from."""
    return function


def _asked_later(module: str, name: str) -> Callable[..., Any]:
    """Return what asks torch itself once it is called."""
    return lambda *values, **others: getattr(_real(module), name)(*values, **others)


def _of_numbers(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return what answers for plain truth values, numbers and shapes, and asks torch about symbols."""
    about_symbols = _asked_later(SYMBOLS, name)

    def asked(*values: Any, **others: Any) -> Any:
        return answer(*values) if not others and _are_plain(values) else about_symbols(*values, **others)

    return asked


def _are_plain(values: Iterable[Any]) -> bool:
    return all(_are_plain(value) if type(value) is tuple else type(value) in (bool, int) for value in values)


def leave_compiler_out() -> None:
    """Let torch's optimizers, its tensors without values and torchvision do without the compiler they would import.

    They import it to tell it to stay away. That takes 2 s and 90 MB in each process, and its symbolic sizes, asked
    whether what is plainly true is true, 0.5 s; whoever does compile, as a user's own architecture may, gets all of it
    the same. Measured with torch 2.15.
    """
    _left_out(COMPILER, {"disable": _same, "graph_break": lambda: None})
    _left_out(_UTILITIES, {"is_compile_supported": _asked_later(_UTILITIES, "is_compile_supported")})
    truths = ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "statically_known_true")
    answers: dict[str, Callable[..., Any]] = {name: _of_numbers(name, bool) for name in truths}
    answers["is_nested_int"] = _of_numbers("is_nested_int", lambda _: False)
    answers["has_guarding_hint"] = _of_numbers("has_guarding_hint", lambda _: True)
    answers["guarding_hint_or_throw"] = _of_numbers("guarding_hint_or_throw", lambda value: value)
    answers["sym_eq"] = _of_numbers("sym_eq", operator.eq)
    answers["sym_and"] = _of_numbers("sym_and", lambda *values: all(values))
    answers["sym_or"] = _of_numbers("sym_or", lambda *values: any(values))
    _left_out(SYMBOLS, answers)
