"""What one machine measured of a bundle's variants, and what it chose: `measured/*.json`.

Measurements lie beside a bundle's content and are no part of its digest. The times of one point
were taken in rounds in which every candidate had its turn, so the n-th entries of two candidates'
`rounds` were taken under the same conditions, and their ratio means more than either of them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.bundle.manifest import Arithmetic, Digest, Engine, Name, Precision
from headrace.hardware import Hardware
from headrace.tensors import Frozen

MEASUREMENT_VERSION = 1
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Point(Frozen):
    """One way of running a variant.

    Attributes:
        batch: Rows of one run.
        threads: Of one session.
        sessions: Side by side, each with its own caller.
        callers: Of one session at once.
    """

    batch: Count
    threads: Count
    sessions: Count = 1
    callers: Count = 1


class Timing(Frozen):
    """What was measured at one point.

    Attributes:
        rounds: The median time of one run in each round, in seconds.
        p50: Of all runs of all rounds, in seconds; so are the other quantiles.
        rows_per_second: Of all sessions and callers together.
        runs: How many there were.
        stable: Whether half of the rounds lie within a tenth of their median.
    """

    point: Point
    rounds: Annotated[tuple[Seconds, ...], Field(min_length=1)]
    p50: Seconds
    p95: Seconds
    p99: Seconds
    rows_per_second: Seconds
    runs: Count
    stable: bool


class Accuracy(Frozen):
    """How well a candidate does on the recipe's evaluation data.

    Attributes:
        metric: Its name.
        value: Mean of the metric over all samples.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        loss: How much worse than the fp32 graph it is, sample by sample; below zero is better.
        loss_low: Lower end of the loss's 95 % interval.
        loss_high: Upper end of it.
        samples: Rows that were scored.
    """

    metric: str
    value: float
    low: float
    high: float
    loss: float
    loss_low: float
    loss_high: float
    samples: Count


class Candidate(Frozen):
    """A variant that was considered, whether or not it was kept.

    Attributes:
        graph: sha256 of its ONNX file; candidates may share one.
        size: Of the file, in bytes.
        error: The largest absolute difference of any output from the source model's; None where
            no golden case was replayed.
        accuracy: None where the recipe has no evaluation data, or this was measured elsewhere
            than at build.
        timings: Empty where the candidate was dropped before its time was measured.
        load_seconds: From the file to a session that has answered once, in a fresh process.
        memory_mib: The most that process held, less what it held before it loaded.
        placement: How many nodes of the graph each execution provider runs.
        fault: Why it does not run here; empty if it does.
        superseded: Why a sibling that is the same to run is better; empty if none is.
    """

    name: Name
    precision: Precision
    engine: Engine
    arithmetic: Arithmetic = "fp32"
    graph: Digest
    size: Annotated[int, Field(ge=0)]
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    accuracy: Accuracy | None = None
    timings: tuple[Timing, ...] = ()
    load_seconds: Seconds | None = None
    memory_mib: float | None = None
    placement: dict[str, int] = Field(default_factory=dict)
    fault: str = ""
    superseded: str = ""

    def timing(self, point: Point) -> Timing | None:
        """What was measured at a point, if anything was."""
        return next((each for each in self.timings if each.point == point), None)


class Limits(Frozen):
    """What a variant must keep to.

    Attributes:
        accuracy_loss: Of the recipe's metric, against the fp32 graph: 0.005 is half a point of a
            share, or a cosine of 0.995.
        memory_mib: Of one loaded session.
        p99_ms: Of one request of one row, in the session alone.
    """

    accuracy_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.005
    memory_mib: Annotated[float, Field(gt=0)] | None = None
    p99_ms: Annotated[float, Field(gt=0)] | None = None


class Dropped(Frozen):
    """Why a candidate is not used.

    Attributes:
        gate: Which gate said no.
        reason: One sentence with the figures.
    """

    variant: Name
    gate: str
    reason: str


class Choice(Frozen):
    """The variant to run at a point."""

    point: Point
    variant: Name


class Selection(Frozen):
    """What follows from a measurement.

    Attributes:
        choices: One for each point at which candidates were compared.
        dropped: Every other candidate, with its reason.
    """

    choices: tuple[Choice, ...]
    dropped: tuple[Dropped, ...]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The variants chosen at one point or more, without repetition."""
        return tuple(dict.fromkeys(choice.variant for choice in self.choices))


class LayerEffect(Frozen):
    """How much one layer of the quantized graph costs.

    Attributes:
        node: Its name in the graph.
        loss: Of the metric against fp32 on calibration data, with this layer alone quantized.
        error: Of the outputs: the norm of the difference over the norm of the fp32 outputs.
        restored: Whether it was put back to float.
    """

    node: str
    operator: str
    loss: float
    error: float
    restored: bool


class Sensitivity(Frozen):
    """What was put back to float in a quantized graph that broke the accuracy budget.

    Attributes:
        source: The candidate that broke it.
        made: The candidate that came of it; empty if the budget was not met.
        layers: The most harmful first.
        complete: False if the time limit ended the search.
    """

    source: Name
    made: str
    layers: tuple[LayerEffect, ...]
    complete: bool


class Measurement(Frozen):
    """One machine's measurement of one bundle.

    Attributes:
        content: The bundle's digest.
        provider: The execution provider of ONNX Runtime that was measured.
        candidates: All that were considered, the most precise first.
        sensitivity: Of layers, where whole-graph quantization broke the budget.
    """

    schema_version: Literal[1] = 1
    content: Digest
    hardware: Hardware
    provider: str
    limits: Limits
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    selection: Selection
    sensitivity: tuple[Sensitivity, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            raise ValueError("two candidates have one name")
        told = {*self.selection.chosen, *(each.variant for each in self.selection.dropped)}
        strange = sorted(told - set(names))
        if strange:
            raise ValueError(f"'{strange[0]}' is no candidate")
        return self
