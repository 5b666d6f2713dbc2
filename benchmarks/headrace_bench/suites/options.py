"""What every suite is asked with."""

from dataclasses import dataclass
from pathlib import Path

from headrace.bundle.open import Bundle


@dataclass(frozen=True)
class SuiteOptions:
    """The same for every suite.

    Attributes:
        bundle: What the user wants measured; a suite has its own where this is None.
        scratch: A directory for what the cases need; it goes when the run is over.
        home: HEADRACE_HOME, under which the peers' environments stand.
        quick: Minutes are wanted, and not every size.
        peers: The names of the peers to measure beside headrace.
        case: A pattern of the cases to run.
    """

    bundle: Bundle | None
    scratch: Path
    home: Path
    quick: bool
    peers: tuple[str, ...]
    case: str = "*"
