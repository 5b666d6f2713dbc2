"""`headrace cache`: what the caches hold, and how it is cleared and trimmed."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from services import run

from headrace.cachedir import adding
from headrace.commands.cache import SECTIONS
from headrace.settings import Settings

Ask = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose cache holds two steps of 1000 bytes and a measurement of 500."""
    cache = tmp_path / "home" / "cache"
    for number, name in enumerate(("fuse-00", "quantize-01")):
        with adding(cache / "steps" / name) as folder:
            (folder / "record.json").write_bytes(bytes(1000))
        os.utime(cache / "steps" / name / "record.json", (number, number))
    (cache / "measured").mkdir()
    (cache / "measured" / "x86_64-2c.json").write_bytes(bytes(500))
    return tmp_path / "home"


@pytest.fixture
def ask(home: Path) -> Ask:
    """The document of a cache command."""

    def document(*arguments: str) -> Any:  # noqa: ANN401 - JSON
        ended = run(home, "cache", *arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return document


def _counts(sections: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    return {part["section"]: (part["entries"], part["bytes"]) for part in sections}


def test_every_section_is_shown(home: Path, ask: Ask) -> None:
    """Entries, sizes and times of use of each section are shown, of empty ones too."""
    found = ask()
    assert found["path"] == str(home / "cache")
    assert _counts(found["sections"]) == {
        "steps": (2, 2000),
        "graphs": (0, 0),
        "measured": (1, 500),
    }
    steps, graphs, _ = found["sections"]
    assert steps["oldest_use"] == "1970-01-01T00:00:00+00:00"
    assert steps["newest_use"] == "1970-01-01T00:00:01+00:00"
    assert graphs["oldest_use"] is None


def test_people_get_a_table(home: Path) -> None:
    """Without --json sizes and times are as people read them."""
    ended = run(home, "cache")
    assert ended.returncode == 0, ended.stderr
    (line,) = (line for line in ended.stdout.splitlines() if "steps" in line)
    assert line.split()[:3] == ["steps", "2", "2.0KB"]
    epoch = datetime.fromtimestamp(0, UTC).astimezone()
    assert line.count(f"{epoch:%Y-%m-%d %H:%M}") == 2


def test_one_section_is_cleared(ask: Ask) -> None:
    """Clearing a section removes what it holds, says so, and leaves the others."""
    assert _counts(ask("clear", "steps")["removed"]) == {"steps": (2, 2000)}
    assert _counts(ask()["sections"])["steps"] == (0, 0)
    assert _counts(ask()["sections"])["measured"] == (1, 500)


def test_all_sections_are_cleared(ask: Ask) -> None:
    """Without a section everything goes."""
    assert set(_counts(ask("clear")["removed"])) == set(SECTIONS)
    assert set(_counts(ask()["sections"]).values()) == {(0, 0)}


def test_trim_keeps_what_was_used_last(home: Path, ask: Ask) -> None:
    """Trimming removes the least recently used of all sections until the limit holds."""
    assert _counts(ask("trim", "--limit", "1.5KB")["removed"])["steps"] == (1, 1000)
    assert [path.name for path in (home / "cache" / "steps").glob("[!.]*")] == ["quantize-01"]
    assert _counts(ask("trim")["removed"])["steps"] == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("clear", "colours"), "cache.section"),
        (("clear", "../../x"), "cache.section"),
        (("trim", "--limit", "much"), "cache.limit"),
        (("trim", "--limit", "-5GB"), "cache.limit"),
    ],
    ids=str,
)
def test_wrong_usage_is_an_error(home: Path, arguments: tuple[str, ...], code: str) -> None:
    """A section or a size that is none ends with 2 and removes nothing."""
    ended = run(home, "cache", *arguments, "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["code"] == code
    assert len(list((home / "cache" / "steps").glob("[!.]*"))) == 2


def test_json_before_the_command_is_an_error(home: Path) -> None:
    """A --json that the command would not see is refused."""
    assert run(home, "cache", "--json", "clear").returncode == 2


def test_the_limit_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADRACE_CACHE_LIMIT takes a size with a unit; the default is 10 GB."""
    monkeypatch.delenv("HEADRACE_CACHE_LIMIT", raising=False)
    assert Settings().cache_limit == 10_000_000_000
    monkeypatch.setenv("HEADRACE_CACHE_LIMIT", "2GB")
    assert Settings().cache_limit == 2_000_000_000
