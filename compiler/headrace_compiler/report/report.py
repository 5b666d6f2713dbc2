"""What a report is about."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.bundle.manifest import Lineage, Manifest
from headrace.bundle.measurement import Measurement


@dataclass(frozen=True)
class Report:
    """A build, as it is told.

    Attributes:
        manifest: Of the bundle; None where the build ended without one.
        measurement: What this machine measured of all candidates.
        seconds: Of each step.
        commit: Of the recipe's repository; empty where there is none.
        problem: Why there is no bundle, in one sentence; empty where there is one.
        name: Of the bundle that was to be, where there is no manifest.
        version: Of it.
        lineage: Of it, as far as it is known.
    """

    manifest: Manifest | None
    measurement: Measurement
    seconds: Mapping[str, float]
    commit: str
    problem: str = ""
    name: str = ""
    version: str = ""
    lineage: Lineage | None = None

    @property
    def title(self) -> str:
        """Name and version."""
        named = self.manifest or self
        return f"{named.name} {named.version}".strip() or "unnamed"

    @property
    def made_by(self) -> Lineage | None:
        """The lineage of what was made, or was to be."""
        return self.manifest.lineage if self.manifest else self.lineage

    @property
    def kept(self) -> frozenset[str]:
        """The variants that are in the bundle, or were chosen for it."""
        shipped = self.manifest.variants if self.manifest else ()
        return frozenset({*self.measurement.selection.chosen, *(each.name for each in shipped)})
