"""The variant that a bundle runs with here: by name, by measurement, or measured now."""

from dataclasses import dataclass
from pathlib import Path

from headrace.bundle.manifest import Variant
from headrace.bundle.measurement import Measurement
from headrace.bundle.open import Bundle
from headrace.engine.session import CPU
from headrace.errors import CheckError, MissingError
from headrace.hardware import Hardware
from headrace.profile import (
    Conditions,
    find_measurement,
    measure_bundle,
    remembered,
    write_measurement,
)
from headrace.selection import choose
from headrace.timing import QUICK, Told, told_nobody


@dataclass(frozen=True)
class Chosen:
    """A variant, and why it is this one.

    Attributes:
        reason: One sentence.
        measured_now: Whether no measurement fitted this machine, so that one was made.
    """

    variant: Variant
    reason: str
    measured_now: bool = False


def choose_variant(
    bundle: Bundle,
    hardware: Hardware,
    *,
    threads: int = 0,
    batch: int = 1,
    provider: str = CPU,
    wanted: str = "",
    home: Path | None = None,
    told: Told = told_nobody,
) -> Chosen:
    """Chooses the variant to run.

    Args:
        threads: Of one session; 0 means all cores.
        batch: The rows of most requests.
        wanted: The name of a variant that was asked for.
        home: Where a measurement that is made now is kept for the next time.

    Raises:
        UsageError: The bundle has no variant of the name, or of the one that was measured best.
        CheckError: None of its variants runs here.
        MissingError: What was measured now cannot be written down.
        BundleError: A measurement in the bundle cannot be read.
    """
    if wanted:
        return Chosen(bundle.manifest.variant(wanted), "asked for by name")
    if len(bundle.manifest.variants) == 1:
        return Chosen(bundle.manifest.variants[0], "the only one")
    found = find_measurement(bundle, hardware, provider, home)
    now = found is None
    measurement = found or _measure(bundle, hardware, provider, home, told)
    name = _choose(measurement, threads or hardware.cores, batch)
    reason = "measured now, since no measurement fits this machine" if now else "as measured"
    return Chosen(bundle.manifest.variant(name), reason, measured_now=now)


def _measure(
    bundle: Bundle, hardware: Hardware, provider: str, home: Path | None, told: Told
) -> Measurement:
    made = measure_bundle(bundle, Conditions(hardware, QUICK, provider), told=told)
    if home is not None and made.selection.choices:
        path = remembered(home, bundle, hardware, provider)
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_measurement(path, made)
        except OSError as error:
            raise MissingError(
                "profile.write", f"{path} cannot be written: {error.strerror or error}"
            ) from error
    return made


def _choose(measurement: Measurement, threads: int, batch: int) -> str:
    try:
        return choose(measurement.selection, threads=threads, batch=batch)
    except CheckError as error:
        reasons = "; ".join(
            f"{each.variant}: {each.reason}" for each in measurement.selection.dropped
        )
        raise CheckError("variant.none", f"no variant can be used here: {reasons}") from error
