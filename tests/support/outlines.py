"""Reads pages back, and writes what attacks them."""

import re
from html.parser import HTMLParser

from headrace_compiler.report.document import POLICY

_VOID = {"br", "hr", "meta"}
HOSTILE = (
    "<script>alert(1)</script> | ` ** _x_ [a](http://a.example) www.a.example @everyone\n"
    "# title\n| --- |\n\x00\x1b[31m\x07\u202e</td></code></details>]]> &amp; &#60; \"' "
    + "x"
    * 5000
)


class Outline(HTMLParser):
    """The elements of a document; it must be well formed.

    Attributes:
        elements: Name and attributes of each, in order.
        text: All text outside the style sheet.
    """

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(document)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Closes the one that was opened last."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keeps text."""
        if self._open and self._open[-1] != "style":
            self.text += data

    def count(self, name: str) -> int:
        """How many elements there are of a name."""
        return sum(element == name for element, _ in self.elements)


def assert_whole(page: str) -> None:
    """A page is well formed, has a strict policy, and holds no script and no address."""
    outline = Outline(page)
    names = {name for name, _ in outline.elements}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    written = [attributes for _, attributes in outline.elements]
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in written
    assert POLICY.startswith("default-src 'none'; style-src 'unsafe-inline'")
    for attributes in written:
        assert not {name for name in attributes if name.startswith("on") or name == "src"}
        assert (attributes.get("href") or "#").startswith("#")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", page)
