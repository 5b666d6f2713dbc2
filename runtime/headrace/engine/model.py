"""A loaded model: preprocess, session, postprocess; proven on this machine before it answers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.bundle.golden import Deviation, GoldenCase, replay
from headrace.bundle.manifest import Manifest, Variant
from headrace.bundle.open import Bundle
from headrace.engine.open import open_session
from headrace.engine.prepared import GraphCache
from headrace.engine.session import CPU, Session
from headrace.engine.stages import NO_STAGES, Stages, open_stages
from headrace.errors import InvalidRequestError, TooLargeError
from headrace.preprocess.image.decode import check_pixels
from headrace.preprocess.spec import raw_row
from headrace.tensors import BATCH, Array, TensorSpec, check_shape

MAX_ROWS = 256
"""Of one request, by default: bounds the memory that a request of tiny images can ask for."""

_RAW = {
    "image": "encoded images",
    "audio": "WAV files",
    "table": "columns",
    "text": "UTF-8 texts",
}
"""What clients send, by the kind of preprocessing."""


@dataclass(frozen=True)
class Answer:
    """What a model gave for one request.

    Attributes:
        outputs: By name; the tensors that `Manifest.answer_outputs` declares.
        seconds: Time by stage.
        rows: How many rows the request had.
        reference: Whether the NumPy reference had a part in it.
    """

    outputs: Mapping[str, Array]
    seconds: Mapping[str, float]
    rows: int
    reference: bool = False


@dataclass(frozen=True)
class Model:
    """A bundle's variant in a session. Answers from many threads at once.

    Attributes:
        bundle: Where it came from.
        variant: Which of its variants runs.
        session: The engine.
        max_rows: The largest request.
        deviations: What the golden replay measured here.
        row_seconds: Time of the session on one row, measured while warming.
        load_seconds: Time of the load: open the session, replay, warm.
        stages: Before and after the session.
    """

    bundle: Bundle
    variant: Variant
    session: Session
    max_rows: int
    deviations: tuple[Deviation, ...]
    row_seconds: float
    load_seconds: float
    stages: Stages = NO_STAGES

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    def answer(self, inputs: Mapping[str, Array]) -> Answer:
        """Answers one request.

        Args:
            inputs: Either the raw input (object array of bytes, shape (rows,)) where the bundle
                declares preprocessing, or every input of the model as a ready tensor.

        Raises:
            InvalidRequestError: A name, datatype or shape does not fit, or an image is broken.
            TooLargeError: Too many rows, or an image of too many pixels.
            InternalError: The model failed.
        """
        rows = self._check(inputs)
        begin = time.perf_counter()
        prepare = self.stages.prepare if self.manifest.is_raw(inputs) else None
        ready = inputs if prepare is None else prepare.run(inputs)
        prepared = time.perf_counter()
        raw = self.session.run(ready)
        ran = time.perf_counter()
        finish = self.stages.finish
        outputs = raw if finish is None else finish.run(raw)
        done = time.perf_counter()
        seconds = {
            "preprocess": prepared - begin,
            "session": ran - prepared,
            "postprocess": done - ran,
        }
        reference = any(not stage.native for stage in (prepare, finish) if stage is not None)
        return Answer(outputs=outputs, seconds=seconds, rows=rows, reference=reference)

    def _check(self, inputs: Mapping[str, Array]) -> int:
        specs = _expected(self.manifest, inputs)
        unknown = sorted(set(inputs) - {spec.name for spec in specs})
        missing = sorted({spec.name for spec in specs} - set(inputs))
        if unknown or missing:
            what = (
                f"unknown input '{unknown[0]}'" if unknown else f"input '{missing[0]}' is missing"
            )
            raise InvalidRequestError(
                "request.inputs", f"{what}; this model takes {_usage(self.manifest)}"
            )
        bound: dict[str, int] = {}
        for spec in specs:
            check_shape(spec, inputs[spec.name], bound)
        fused = self.manifest.in_graph
        if fused is not None:  # its graph takes what a decoder could have given
            width, height = bound["width"], bound["height"]
            if not width * height:
                raise InvalidRequestError("request.image", "the image has no pixels")
            check_pixels(width, height, fused.decode.max_pixels)
        rows = bound.get(BATCH, 1)
        if rows == 0:
            raise InvalidRequestError("request.empty", "the request has no rows")
        if rows > self.max_rows:
            raise TooLargeError(
                "request.rows", f"the request has {rows} rows; this server takes {self.max_rows}"
            )
        return rows


def load_model(
    bundle: Bundle,
    *,
    variant: Variant | None = None,
    provider: str = CPU,
    threads: int = 0,
    max_rows: int = MAX_ROWS,
    cache: GraphCache | None = None,
    allow_reference: bool = False,
) -> Model:
    """Opens a bundle's variant in a session, warms it, and replays its golden cases.

    Args:
        variant: By default the most precise; `headrace.choice` finds the one to run here.
        threads: Of the session; 0 takes the physical cores.
        cache: Of graphs that were optimized for this host.
        allow_reference: Prepare raw inputs in NumPy where none of the bundle's libraries runs here.

    Raises:
        MissingError: The provider is not to be had here.
        BundleError: The graph does not load, or a golden case came out otherwise than at build.
    """
    begin = time.perf_counter()
    variant = variant or bundle.manifest.variants[0]
    prepared = None if cache is None else cache.of(bundle.manifest, variant)
    session = open_session(
        bundle.model_path(variant), variant, provider=provider, threads=threads, cache=prepared
    )
    cases = bundle.golden_cases()
    session.expect(_one_row(cases[0], batched=bundle.manifest.batched))
    stages = open_stages(bundle, threads=threads, allow_reference=allow_reference)
    prepare = stages.prepare
    deviations = replay(
        cases,
        session.run,
        variant.tolerance,
        None if prepare is None else lambda raw: prepare.run(raw_row(raw)),
    )
    return Model(
        bundle=bundle,
        variant=variant,
        session=session,
        max_rows=max_rows,
        deviations=deviations,
        row_seconds=_warm(session, cases, batched=bundle.manifest.batched),
        load_seconds=time.perf_counter() - begin,
        stages=stages,
    )


def _one_row(case: GoldenCase, *, batched: bool) -> Mapping[str, Array]:
    """The smallest request of a case's shape: what comes most often where nothing is batched."""
    return {name: array[:1] for name, array in case.inputs.items()} if batched else case.inputs


def _warm(session: Session, cases: Sequence[GoldenCase], *, batched: bool) -> float:
    """Runs a golden case a few times more; the quickest, in seconds a row, is what a row costs."""
    inputs = cases[0].inputs
    rows = len(next(iter(inputs.values()))) if batched else 1
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - begin)
    return min(times) / rows


def _expected(manifest: Manifest, inputs: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    spec = manifest.preprocessing
    return spec.takes if spec is not None and manifest.is_raw(inputs) else manifest.inputs


def _usage(manifest: Manifest) -> str:
    ready = _named(manifest.inputs)
    spec = manifest.preprocessing
    return ready if spec is None else f"either {_named(spec.takes)} ({_RAW[spec.kind]}) or {ready}"


def _named(specs: Sequence[TensorSpec]) -> str:
    return " and ".join(f"'{spec.name}'" for spec in specs)
