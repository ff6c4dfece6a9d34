"""Pages from the templates of this folder: what comes from outside is escaped, and nothing is asked of the network."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from foundation import printable

_TEMPLATES = FileSystemLoader(Path(__file__).parent, encoding="utf-8")


def render_page(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes of the values; a value that is missing is an error.

    Characters that control a display, among them those that turn the direction of writing, become a visible
    replacement. The filter `coded` sets what stands in `backquotes` in a sentence as code.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=_TEMPLATES,
    )
    environment.filters["coded"] = _coded
    return environment.get_template(template).render(values)


def _visible(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _coded(sentence: str) -> Markup:
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(sentence)))))
