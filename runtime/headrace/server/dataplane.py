"""The data plane: one typed request in, one typed answer out, whichever edge it came through."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np

from headrace.engine.model import Answer, Model
from headrace.errors import (
    InvalidRequestError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from headrace.hardware import installed_version
from headrace.observe.metrics import Metrics
from headrace.protocol.checks import shown
from headrace.protocol.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    Tensor,
)
from headrace.tensors import BATCH, Array

PLATFORM = "onnx_onnxv1"
EXTENSIONS = ("binary_tensor_data",)
# Two callers keep a session busy while one of them decodes or encodes.
_CALLERS = 2
# A hop to a thread costs about 0.13 ms; a request quicker than a few hops runs on the loop.
_INLINE_SECONDS = 5e-4
LARGE_TEXT = 64 << 10
"""Bytes of JSON, or of numbers as typed messages, that take longer than such a hop to decode."""
_LARGE_ANSWER = 8192  # elements; their JSON takes some milliseconds
_T = TypeVar("_T")


class ClientGoneError(RequestError):
    """The client left before it had its answer; nobody reads another."""


def server_metadata() -> ServerMetadata:
    """What this server says of itself."""
    return ServerMetadata(
        name="headrace", version=installed_version("headrace") or "", extensions=EXTENSIONS
    )


class DataPlane:
    """Answers requests for the models it holds.

    Args:
        models: Loaded; their names differ.
        metrics: Where stages and requests are recorded.
        max_in_flight: Requests accepted and not yet answered; one more is refused.
    """

    def __init__(
        self, models: Iterable[Model], metrics: Metrics, *, max_in_flight: int = 128
    ) -> None:
        self._models = {model.manifest.name: model for model in models}
        self.metrics = metrics
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._threads = ThreadPoolExecutor(_CALLERS, thread_name_prefix="headrace-session")

    def record(self, model: str, refusal: RequestError | None, seconds: float) -> None:
        """Records a whole request, answered or refused, under names that this server knows."""
        known = self._models.get(model)
        name, version = (known.manifest.name, known.manifest.version) if known else ("", "")
        outcome = "ok" if refusal is None else refusal.code
        self.metrics.observe_request(name, version, outcome, seconds)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds one of the places for requests in flight; from the whole body to its answer.

        Raises:
            UnavailableError: All of them are taken.
        """
        if self._in_flight >= self._max_in_flight:
            raise UnavailableError(
                "server.busy", f"{self._in_flight} requests are in flight already; try again later"
            )
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def work(self, function: Callable[[], _T], *, large: bool) -> _T:
        """Runs a part of a request: here if it is short, in a thread if it would hold up others."""
        if not large:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Waits for what runs and ends the threads."""
        self._threads.shutdown()

    def find(self, name: str, version: str) -> Model:
        """The model of a name, and of a version where one is given.

        Raises:
            NotFoundError: There is none.
        """
        model = self._models.get(name)
        if model is None:
            raise NotFoundError("model.not-found", f"there is no model {shown(name)} here")
        if version and version != model.manifest.version:
            raise NotFoundError(
                "model.version-not-found",
                f"model '{name}' is served in version {model.manifest.version},"
                f" not {shown(version)}",
            )
        return model

    def model_metadata(self, name: str, version: str) -> ModelMetadata:
        """What the server says of one model.

        Raises:
            NotFoundError: There is no such model or version.
        """
        manifest = self.find(name, version).manifest
        return ModelMetadata(
            name=manifest.name,
            versions=(manifest.version,),
            platform=PLATFORM,
            inputs=manifest.request_inputs,
            outputs=manifest.answer_outputs,
        )

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answers one request, which the caller has `admitted`.

        Raises:
            RequestError: It cannot be answered; the class says whose fault it is.
        """
        model = self.find(request.model, request.version)
        wanted = _wanted_outputs(model, request.outputs)
        inputs = {tensor.name: tensor.array for tensor in request.inputs}
        run = partial(_answer, model, inputs, time.perf_counter())
        answer, queued = await self.work(run, large=not _is_short(model, inputs))
        name, version = model.manifest.name, model.manifest.version
        self.metrics.observe_stages(name, version, {"queue": queued, **answer.seconds})
        self.metrics.count_rows(name, version, answer.rows)
        if answer.reference:
            self.metrics.count_reference_rows(name, version, answer.rows)
        return InferResponse(
            model=name,
            version=version,
            id=request.id,
            outputs=tuple(Tensor.of(output, answer.outputs[output]) for output in wanted),
        )


def is_large(response: InferResponse) -> bool:
    """Whether it takes long to encode."""
    return sum(tensor.array.size for tensor in response.outputs) > _LARGE_ANSWER


def _answer(model: Model, inputs: Mapping[str, Array], asked: float) -> tuple[Answer, float]:
    queued = time.perf_counter() - asked
    return model.answer({name: _aligned(array) for name, array in inputs.items()}), queued


def _is_short(model: Model, inputs: Mapping[str, Array]) -> bool:
    """Whether the rows of a request foretell its time, and it is a short one."""
    manifest = model.manifest
    if manifest.postprocessing is not None or manifest.is_raw(inputs):
        return False  # what was timed is the session alone
    axes = {axis for spec in manifest.inputs for axis in spec.shape if isinstance(axis, str)}
    if axes - {BATCH}:
        return False  # a row may be of any size
    rows = max((array.shape[0] for array in inputs.values() if array.ndim), default=1)
    return model.row_seconds * max(rows, 1) < _INLINE_SECONDS


def _aligned(array: Array) -> Array:
    """A view of a request's body may start at any byte; engines want the dtype's alignment."""
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


def _wanted_outputs(model: Model, requested: tuple[RequestedOutput, ...]) -> tuple[str, ...]:
    offered = tuple(spec.name for spec in model.manifest.answer_outputs)
    if not requested:
        return offered
    for output in requested:
        if output.name not in offered:
            raise InvalidRequestError(
                "request.outputs",
                f"unknown output '{output.name}'; this model answers {', '.join(offered)}",
            )
    return tuple(output.name for output in requested)
