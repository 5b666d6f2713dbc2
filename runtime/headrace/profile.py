"""Measures a bundle's variants on this machine, and remembers what follows from it."""

import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from headrace.bundle.golden import GoldenCase, replay
from headrace.bundle.manifest import MEASURED, Variant
from headrace.bundle.measurement import Candidate, Limits, Measurement
from headrace.bundle.open import Bundle
from headrace.engine.open import open_session
from headrace.engine.session import CPU, Session
from headrace.errors import BundleError, HeadraceError
from headrace.footprint import Footprint, measure_footprint, write_inputs
from headrace.hardware import Hardware
from headrace.selection import gates, ladder, refused, select
from headrace.timing import (
    Contender,
    Effort,
    Request,
    Timings,
    Told,
    curves,
    race,
    told_nobody,
)

_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Conditions:
    """Where and how thoroughly to measure."""

    hardware: Hardware
    effort: Effort
    provider: str = CPU


def measure_bundle(
    bundle: Bundle,
    conditions: Conditions,
    *,
    limits: Limits | None = None,
    told: Told = told_nobody,
) -> Measurement:
    """Replays and times every variant of a bundle here, and selects.

    Args:
        limits: What a variant must keep to; by default those of the bundle's own measurements.

    Raises:
        BundleError: The golden cases cannot be read.
    """
    cases = bundle.golden_cases()
    kept_to = limits or _limits_of(bundle)
    provider = conditions.provider
    found = [_replayed(bundle, variant, cases, provider) for variant in bundle.manifest.variants]
    request = Request(typical_case(cases).inputs, batched=bundle.manifest.batched)
    files = {each.name: (bundle.model_path(each), each) for each in bundle.manifest.variants}
    instruments = Instruments(files, request, conditions, told)
    measured = time_candidates(found, kept_to, instruments, proven=True)
    return Measurement(
        content=bundle.digest,
        hardware=conditions.hardware,
        provider=provider,
        limits=kept_to,
        candidates=tuple(measured),
        selection=select(measured, kept_to, proven=True),
    )


class Measures(Protocol):
    """What times candidates, by their names."""

    @property
    def thorough(self) -> bool:
        """Whether more is measured than what a choice needs."""
        ...

    def race(self, names: Sequence[str]) -> Timings:
        """Compares them; see `headrace.timing.race`."""
        ...

    def weigh(self, names: Sequence[str]) -> Mapping[str, Footprint]:
        """What loading each of them costs."""
        ...

    def curve(self, names: Sequence[str]) -> Timings:
        """The points beyond the race; see `headrace.timing.curves`."""
        ...


@dataclass(frozen=True)
class Instruments:
    """Measures candidates in this process.

    Attributes:
        files: The ONNX file and the variant, by candidate.
    """

    files: Mapping[str, tuple[Path, Variant]]
    request: Request
    conditions: Conditions
    told: Told = told_nobody

    @property
    def thorough(self) -> bool:
        """See `Measures`."""
        return bool(self.conditions.effort.curve)

    def race(self, names: Sequence[str]) -> Timings:
        """See `Measures`."""
        return race(
            self._contenders(names),
            self.request,
            cores=self.conditions.hardware.cores,
            effort=self.conditions.effort,
            told=self.told,
        )

    def weigh(self, names: Sequence[str]) -> Mapping[str, Footprint]:
        """See `Measures`; each in a process of its own, on one thread.

        Raises:
            InternalError: Such a process failed.
        """
        found = {}
        with tempfile.TemporaryDirectory(prefix="headrace-profile-") as folder:
            request = Path(folder) / "request.npz"
            write_inputs(request, self.request.inputs)
            for number, name in enumerate(names):
                self.told("load", number, len(names))
                model, variant = self.files[name]
                found[name] = measure_footprint(
                    model, variant, request, provider=self.conditions.provider, threads=1
                )
        return found

    def curve(self, names: Sequence[str]) -> Timings:
        """See `Measures`."""
        return curves(
            self._contenders(names),
            self.request,
            cores=self.conditions.hardware.cores,
            effort=self.conditions.effort,
            told=self.told,
        )

    def _contenders(self, names: Sequence[str]) -> list[Contender]:
        return [Contender(name, partial(self._open, name)) for name in names]

    def _open(self, name: str, threads: int) -> Session:
        model, variant = self.files[name]
        return open_session(model, variant, provider=self.conditions.provider, threads=threads)


def time_candidates(
    candidates: Sequence[Candidate], limits: Limits, measures: Measures, *, proven: bool
) -> list[Candidate]:
    """Times all candidates that no gate refuses beforehand.

    Args:
        proven: See `headrace.selection.gates`.

    Returns:
        All candidates, the most precise first.
    """
    before = gates(limits.model_copy(update={"memory_mib": None, "p99_ms": None}), proven=proven)
    out = {each.variant for each in refused(candidates, before)}
    names = [each.name for each in ladder(candidates) if each.name not in out]
    if not names:
        return ladder(candidates)
    timings = measures.race(names)
    timed = [_with(each, timings) for each in candidates]
    if not measures.thorough and limits.memory_mib is None:
        return ladder(timed)
    costs = {name: asdict(cost) for name, cost in measures.weigh(names).items()}
    timed = [each.model_copy(update=costs.get(each.name, {})) for each in timed]
    if not measures.thorough:
        return ladder(timed)
    chosen = {*select(timed, limits, proven=proven).chosen, names[0]}
    more = measures.curve([name for name in names if name in chosen])
    return ladder(_with(each, more) for each in timed)


def typical_case(cases: Sequence[GoldenCase]) -> GoldenCase:
    """The case whose inputs are of middling size."""

    def size(case: GoldenCase) -> int:
        return sum(array.size for array in case.inputs.values())

    return sorted(cases, key=size)[len(cases) // 2]


def measurement_name(hardware: Hardware, provider: str = CPU) -> str:
    """The name of a machine's measurement, relative to a bundle."""
    return f"{MEASURED}{_stem(hardware, provider)}.json"


def _stem(hardware: Hardware, provider: str) -> str:
    """A fingerprint; with another provider than the CPU's, its name behind it."""
    if provider == CPU:
        return hardware.fingerprint
    return f"{hardware.fingerprint}-{provider.removesuffix('ExecutionProvider').lower()}"


def find_measurement(
    bundle: Bundle, hardware: Hardware, provider: str, home: Path | None
) -> Measurement | None:
    """The measurement that fits this machine: the bundle's own, or one made here before.

    Args:
        home: Where measurements lie that were made at loads.

    Raises:
        BundleError: There is one in the bundle, and it cannot be read.
    """
    inside = bundle.path / measurement_name(hardware, provider)
    outside = None if home is None else remembered(home, bundle, hardware, provider)
    for path in (inside, outside):
        if path is not None and path.is_file() and not path.is_symlink():
            found = read_measurement(path)
            if found.content == bundle.digest and found.provider == provider:
                return found
    return None


def read_measurement(path: Path) -> Measurement:
    """A measurement from its file.

    Raises:
        BundleError: It is no measurement.
    """
    try:
        with path.open("rb") as file:
            return Measurement.model_validate_json(file.read(_MAX_BYTES))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleError(
            "bundle.measurement",
            f"{path.name} is no measurement: {first['msg']:.200}",
            "remove it and measure again: headrace profile",
        ) from error


def read_measurements(bundle: Bundle) -> tuple[Measurement, ...]:
    """The measurements in a bundle that are of its content, by file name.

    Raises:
        BundleError: One cannot be read.
    """
    found = [
        read_measurement(path)
        for path in sorted((bundle.path / MEASURED).glob("*.json"))
        if not path.is_symlink()
    ]
    return tuple(each for each in found if each.content == bundle.digest)


def write_measurement(path: Path, measurement: Measurement) -> None:
    """Writes a measurement whole or not at all.

    Raises:
        OSError: The disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not a temporary file of the system's: those are for their owner alone, and a bundle is read
    # by whoever serves it.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.write_text(measurement.model_dump_json(indent=1) + "\n", encoding="utf-8")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def remembered(home: Path, bundle: Bundle, hardware: Hardware, provider: str = CPU) -> Path:
    """Where a measurement made at a load is kept."""
    name = f"{bundle.digest[:32]}-{_stem(hardware, provider)}.json"
    return home / "cache" / "measured" / name


def _replayed(
    bundle: Bundle, variant: Variant, cases: Sequence[GoldenCase], provider: str
) -> Candidate:
    """A variant with its golden error here, or with the reason why it does not run here."""
    entry = bundle.manifest.files[variant.path]
    candidate = Candidate(
        name=variant.name,
        precision=variant.precision,
        engine=variant.engine,
        arithmetic=variant.arithmetic,
        graph=entry.sha256,
        size=entry.size,
    )
    try:
        session = open_session(bundle.model_path(variant), variant, provider=provider, threads=1)
        deviations = replay(cases, session.run, variant.tolerance)
    except HeadraceError as error:
        return candidate.model_copy(update={"fault": error.message})
    measured = {
        "error": max(deviation.error for deviation in deviations),
        "placement": dict(session.placement),
    }
    return candidate.model_copy(update=measured)


def _with(candidate: Candidate, timings: Timings) -> Candidate:
    more = timings.get(candidate.name, ())
    return candidate.model_copy(update={"timings": (*candidate.timings, *more)})


def _limits_of(bundle: Bundle) -> Limits:
    """What the bundle's first measurement was held to, or the usual limits."""
    found = read_measurements(bundle)
    return found[0].limits if found else Limits()
