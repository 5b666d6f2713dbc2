"""The frame of a page: no script, no request, nothing that is not in the file."""

import re
from collections.abc import Sequence
from importlib.resources import files

from headrace_compiler.report.markup import Markup, tag

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, body: Sequence[Markup]) -> str:
    """A whole page."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(_style())),
    )
    page = tag("html", head, tag("body", tag("main", *body)), lang="en")
    return f"<!doctype html>\n{page}\n"


def header(title: str, over: str, lines: Sequence[str], kind: str | None = None) -> Markup:
    """What a page is about: its title in the colour of `kind`, and a few lines below."""
    heading = tag("h1", title, class_=kind)
    lead = [tag("p", line, class_="lead") for line in lines]
    return tag("header", tag("p", over, class_="over"), heading, *lead)


def contents(label: str, parts: Sequence[tuple[str, str]]) -> Markup:
    """Links to the parts of a page, by id and name."""
    links = [tag("li", tag("a", name, href=f"#{part}")) for part, name in parts]
    return tag("nav", tag("ul", *links, class_="chips"), aria_label=label)


def footer(title: str, found: Sequence[tuple[str, str]]) -> Markup:
    """What a page stands on, at its end."""
    if not found:
        return Markup()
    return tag("footer", tag("h2", title), definitions(found))


def definitions(found: Sequence[tuple[str, str]]) -> Markup:
    """Names, and what is said of each."""
    listed = [part for name, said in found for part in (tag("dt", name), tag("dd", said))]
    return tag("dl", *listed)


def _style() -> str:
    text = files("headrace_compiler.report").joinpath("page.css").read_text(encoding="utf-8")
    return re.sub(r"\s*\n\s*", "\n", text)
