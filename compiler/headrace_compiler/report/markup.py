"""HTML and SVG from plain functions: whatever is not markup yet is escaped on its way in."""

from html import escape
from typing import Self

_VOID = frozenset({"br", "hr", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()

    @classmethod
    def joined(cls, *parts: str) -> Self:
        """Parts one after the other; those that are plain text are escaped."""
        return cls("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | int | None) -> Markup:
    """An element.

    Args:
        name: Of the element.
        children: Plain text is escaped, `Markup` is not.
        attributes: `class_` is written `class`, and `text_anchor` `text-anchor`; one that is None
            is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _VOID else f"</{name}>"
    return Markup(f"<{name}{written}>{Markup.joined(*children)}{end}")
