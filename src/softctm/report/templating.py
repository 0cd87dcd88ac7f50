"""The templates of the pages, and how they are filled: one file that needs no other."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def page_template(name: str) -> Template:
    """A template; what is put in is escaped, and a name that it does not get is an error."""
    environment = Environment(
        loader=PackageLoader("softctm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def resource(name: str) -> str:
    """The text of a style sheet or script beside the templates."""
    return resources.files("softctm.report").joinpath("templates", name).read_text(encoding="utf-8")
