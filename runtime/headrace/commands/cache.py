"""`cache`: what the caches under the home directory hold; clears and trims them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from headrace.cachedir import Entry, clear, entries, trim
from headrace.commands.screen import AsJson, print_json, print_table
from headrace.errors import UsageError
from headrace.settings import Settings

SECTIONS = ("steps", "graphs", "measured")
"""Steps of compiles; graphs prepared for this machine; what this machine measured."""


@dataclass(frozen=True)
class _Section:
    name: str
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(entry.size for entry in self.entries)

    @property
    def times(self) -> tuple[datetime, datetime] | None:
        """The oldest and the newest last use."""
        if not self.entries:
            return None
        first, last = self.entries[0].last_used, self.entries[-1].last_used
        return datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC)


def register(app: typer.Typer) -> None:
    """Adds this command to the program."""
    cache = typer.Typer(help="Show what the caches hold, clear them, or trim them.")
    cache.callback(invoke_without_command=True)(show)
    cache.command("clear")(clear_sections)
    cache.command("trim")(trim_sections)
    app.add_typer(cache, name="cache")


def show(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show what the caches hold; with a command, clear or trim them."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise UsageError("cache.json", "--json stands behind the command, and not before it")
        return
    root = Settings().cache
    held = [_Section(name, entries(root / name)) for name in SECTIONS]
    if as_json:
        print_json({"path": str(root), "sections": [_document(section) for section in held]})
        return
    print_table(
        f"caches in {root}",
        ("section", "entries", "size", "oldest use", "newest use"),
        [_row(section) for section in held],
    )


def clear_sections(
    section: Annotated[
        str, typer.Argument(help=f"One of {', '.join(SECTIONS)}; all of them if left out.")
    ] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Remove everything that a section holds; what is needed again is made again."""
    if section and section not in SECTIONS:
        raise UsageError(
            "cache.section",
            f"there is no section '{section}' in the cache",
            f"sections are {', '.join(SECTIONS)}",
        )
    root = Settings().cache
    chosen = (section,) if section else SECTIONS
    _report([_Section(name, clear(root / name)) for name in chosen], as_json=as_json)


def trim_sections(
    limit: Annotated[
        str,
        typer.Option(help="What may stay, as 5GB; HEADRACE_CACHE_LIMIT, or 10GB, if left out."),
    ] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Remove what was not used for the longest time, until all sections together keep to a size."""
    settings = Settings()
    allowed = _bytes(limit) if limit else settings.cache_limit
    roots = {name: settings.cache / name for name in SECTIONS}
    removed = trim(tuple(roots.values()), allowed)
    by_section = [
        _Section(name, tuple(entry for entry in removed if entry.path.parent == folder))
        for name, folder in roots.items()
    ]
    _report(by_section, as_json=as_json)


def _bytes(text: str) -> int:
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError as error:
        raise UsageError("cache.limit", f"'{text}' is no size", "write it as 5GB") from error


def _report(removed: Sequence[_Section], *, as_json: bool) -> None:
    if as_json:
        print_json({"removed": [_document(section) for section in removed]})
        return
    rows = [(section.name, len(section.entries), _shown(section.size)) for section in removed]
    print_table("removed", ("section", "entries", "size"), rows)


def _document(section: _Section) -> dict[str, object]:
    oldest, newest = section.times or (None, None)
    return {
        "section": section.name,
        "entries": len(section.entries),
        "bytes": section.size,
        "oldest_use": oldest and oldest.isoformat(timespec="seconds"),
        "newest_use": newest and newest.isoformat(timespec="seconds"),
    }


def _row(section: _Section) -> tuple[object, ...]:
    times = section.times or ()
    shown = [time.astimezone().isoformat(" ", "minutes")[:16] for time in times] or ["", ""]
    return section.name, len(section.entries), _shown(section.size), *shown


def _shown(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
