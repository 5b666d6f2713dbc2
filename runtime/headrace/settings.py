"""What headrace reads from its environment: once, at the edge of the program."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment, prefix `HEADRACE_`.

    Attributes:
        home: The one place of state: records of running services, keys, caches. Owner-only.
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".headrace")

    def ensure_home(self) -> Path:
        """The home directory, made with owner-only permissions where it is not there."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.home.resolve()
