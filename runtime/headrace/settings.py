"""What headrace reads from its environment: once, at the edge of the program."""

from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace.errors import UsageError


def _default_home() -> Path:
    try:
        return Path.home() / ".headrace"
    except RuntimeError as error:
        raise UsageError(
            "settings.home", "this user has no home directory", "set HEADRACE_HOME"
        ) from error


class Settings(BaseSettings):
    """The environment, prefix `HEADRACE_`.

    Attributes:
        home: The one place of state: records of running services, keys, caches. Owner-only.
        cache_limit: Of the compiler's steps kept for the next build, in bytes, or with a unit as
            10GB; 0 keeps none.
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_ignore_empty=True, frozen=True)

    home: Path = Field(default_factory=_default_home)
    cache_limit: Annotated[ByteSize, Field(ge=0)] = ByteSize(10_000_000_000)

    @property
    def cache(self) -> Path:
        """Where the caches lie, each in a directory of its own."""
        return self.home / "cache"

    def ensure_home(self) -> Path:
        """The home directory, made with owner-only permissions where it is not there."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.home.resolve()
