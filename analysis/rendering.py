"""Templates -> pages: one HTML file each that works offline, in one style, with everything from outside escaped."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from foundation import printable, written_beside


def render_page(template: str, /, **values: object) -> str:
    """Return the page that a template of this folder makes of `values`.

    Texts are escaped, and characters in them that control a display (among them those that turn the direction of
    writing) become a visible replacement. Raises jinja2's `UndefinedError` for a value that the template misses.
    """
    return _environment().get_template(template).render(values)


def write_page(page: str, path: Path) -> None:
    """Write a page, whole or not at all."""
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = _coded
    return environment


def _coded(sentence: str) -> Markup:
    """Return a sentence with what stands in `backquotes` set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(sentence)))))


def _visible(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
