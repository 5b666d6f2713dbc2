"""What headrace reads from its environment: once, at the edge of the program."""

from pathlib import Path

from pydantic import Field
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
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_ignore_empty=True, frozen=True)

    home: Path = Field(default_factory=_default_home)

    def ensure_home(self) -> Path:
        """The home directory, made with owner-only permissions where it is not there."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.home.resolve()
