"""Pages from the templates of this folder: what comes from outside is escaped, and nothing is asked of the network."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = FileSystemLoader(Path(__file__).parent, encoding="utf-8")


def render_page(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes of the values; a value that is missing is an error."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=_TEMPLATES
    )
    return environment.get_template(template).render(values)
