"""A loaded model: preprocess, session, postprocess; proven on this machine before it answers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.bundle.golden import Deviation, GoldenCase, replay
from headrace.bundle.manifest import Manifest, Variant
from headrace.bundle.open import Bundle
from headrace.engine.open import open_session
from headrace.engine.preparation import Preparer, open_preparer
from headrace.engine.prepared import GraphCache
from headrace.engine.session import CPU, Session
from headrace.errors import InternalError, InvalidRequestError, TooLargeError
from headrace.postprocess.reference import postprocess
from headrace.preprocess.native import NativeImages
from headrace.tensors import BATCH, Array, TensorSpec, check_shape

MAX_ROWS = 256
"""Of one request, by default: bounds the memory that a request of tiny images can ask for."""


@dataclass(frozen=True)
class Answer:
    """What a model gave for one request.

    Attributes:
        outputs: By name; the tensors that `Manifest.answer_outputs` declares.
        seconds: Time by stage.
        rows: How many rows the request had.
        reference: Whether they were prepared by the NumPy reference.
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
        preparer: Of raw inputs; None where the bundle declares no preprocessing.
    """

    bundle: Bundle
    variant: Variant
    session: Session
    max_rows: int
    deviations: tuple[Deviation, ...]
    row_seconds: float
    load_seconds: float
    preparer: Preparer | None = None

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def native(self) -> bool:
        """Whether raw inputs are prepared by a native library."""
        return isinstance(self.preparer, NativeImages)

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
        ready = self._prepare(inputs)
        prepared = time.perf_counter()
        raw = self.session.run(ready)
        ran = time.perf_counter()
        outputs = self._finish(raw)
        done = time.perf_counter()
        seconds = {
            "preprocess": prepared - begin,
            "session": ran - prepared,
            "postprocess": done - ran,
        }
        reference = ready is not inputs and not self.native
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
        rows = bound.get(BATCH, 1)
        if rows == 0:
            raise InvalidRequestError("request.empty", "the request has no rows")
        if rows > self.max_rows:
            raise TooLargeError(
                "request.rows", f"the request has {rows} rows; this server takes {self.max_rows}"
            )
        return rows

    def _prepare(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        spec = self.manifest.preprocessing
        if spec is None or spec.input not in inputs:
            return inputs
        if self.preparer is None:
            raise InternalError("preprocess.missing", "the model was loaded without preprocessing")
        return {spec.output: self.preparer.prepare(inputs[spec.input].tolist())}

    def _finish(self, raw: Mapping[str, Array]) -> Mapping[str, Array]:
        spec = self.manifest.postprocessing
        return raw if spec is None else postprocess(spec, raw)


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
    preprocessing = bundle.manifest.preprocessing
    cases = bundle.golden_cases()
    session.expect(_one_row(cases[0], batched=bundle.manifest.batched))
    preparer = open_preparer(bundle, threads=threads, allow_reference=allow_reference)
    deviations = replay(
        cases,
        session.run,
        variant.tolerance,
        None
        if preprocessing is None or preparer is None
        else lambda raw: {preprocessing.output: preparer.prepare(list(raw.values()))},
    )
    return Model(
        bundle=bundle,
        variant=variant,
        session=session,
        max_rows=max_rows,
        deviations=deviations,
        row_seconds=_warm(session, cases, batched=bundle.manifest.batched),
        load_seconds=time.perf_counter() - begin,
        preparer=preparer,
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
    raw = manifest.preprocessing
    if raw is not None and raw.input in inputs:
        return manifest.request_inputs[:1]
    return manifest.inputs


def _usage(manifest: Manifest) -> str:
    ready = " and ".join(f"'{spec.name}'" for spec in manifest.inputs)
    if manifest.preprocessing is None:
        return ready
    return f"either '{manifest.preprocessing.input}' (encoded images) or {ready}"
