"""A session on OpenVINO: the same ONNX files as ONNX Runtime, on the CPU, in fp32, bf16 or fp16.

OpenVINO fills gaps silently: it rounds 64-bit numbers, casts arrays, computes in another precision
than it was asked for, and runs an input that was not given with what the last caller gave. Each of
these is an error here.
"""

import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.bundle.manifest import Arithmetic
from headrace.errors import BundleError, InternalError, InvalidRequestError, MissingError
from headrace.tensors import Array

if TYPE_CHECKING:
    import openvino

DEVICE = "CPU"
PLACE = "OpenVINO CPU"

_HINTS: Mapping[Arithmetic, tuple[str, str]] = MappingProxyType(
    {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
)
"""By arithmetic: the precision hint, and the capability that the device must have."""
_TELEMETRY = "openvino_telemetry"
_SUFFIX = "/sink_port_0"
_COMPUTED = frozenset({"boolean", "u8", "u16", "i8", "i16", "i32", "i64", "f16", "f32"})
"""The element types that survive: the CPU computes u32, u64 and i64 as i32, and f64 as f32."""
_NO_OPERATION = frozenset({"Input", "Const", "Output"})
_INT32 = np.iinfo(np.int32)
MOST_EXPECTED = 4
"""Shapes that a session is compiled for by themselves."""


def load_openvino() -> Any:  # noqa: ANN401 - see load_onnxruntime
    """The openvino module, kept from telling its maker that it was imported.

    Importing it otherwise sends an event to its maker's analytics, unless a file in the user's
    home forbids that. Without its telemetry module it falls back to a stub, and so does nncf.

    Raises:
        MissingError: It is not installed.
    """
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # as importlib spells "not there"
    try:
        import openvino as ov  # noqa: PLC0415 - an edge without this engine still runs the other
    except ImportError as error:
        raise MissingError(
            "extra.openvino",
            "this variant runs on OpenVINO, and openvino cannot be imported",
            "pip install 'headrace[openvino]'",
        ) from error
    return ov


_Shapes = frozenset[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class _Requests:
    """A compiled model, and its requests that nobody uses at the moment."""

    model: "openvino.CompiledModel"
    idle: "deque[openvino.InferRequest]"


class OpenVinoSession:
    """A graph on OpenVINO's CPU device.

    Args:
        model: A path, whose external data lies beside it, or the bytes of a model without any.
        arithmetic: In which it computes what the graph declares as float32.
        threads: Of this session; 0 lets OpenVINO take the cores.

    Raises:
        MissingError: openvino is not installed, or this processor has not that arithmetic.
        BundleError: The graph cannot be loaded.
    """

    def __init__(
        self, model: Path | bytes, *, arithmetic: Arithmetic = "fp32", threads: int = 0
    ) -> None:
        ov = load_openvino()
        core = ov.Core()
        hint, capability = _HINTS[arithmetic]
        capabilities = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        if capability not in capabilities:
            raise _no_arithmetic(arithmetic, f"it has {', '.join(sorted(capabilities))}")
        settings: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Replicas share a machine, and would all be pinned to its first cores.
            "ENABLE_CPU_PINNING": False,
        }
        shown = model.name if isinstance(model, Path) else "the model"
        try:
            graph = _read(ov, model)
            compiled = core.compile_model(graph, DEVICE, settings)
        except _faults(ov) as error:
            raise BundleError("bundle.graph", f"OpenVINO cannot load {shown}: {error}") from error
        _check_arithmetic(compiled, arithmetic)
        self._graph, self._core, self._settings = graph, core, settings
        self._dynamic = graph.is_dynamic()
        self._inputs = {port.any_name: _dtype(port, port.any_name) for port in compiled.inputs}
        self._outputs = tuple(_output(port) for port in compiled.outputs)
        for port, name in zip(compiled.outputs, self._outputs, strict=True):
            _dtype(port, name)
        if not self._outputs:
            raise BundleError("bundle.graph", f"OpenVINO cannot load {shown}: it has no outputs")
        self._any = _Requests(compiled, deque())
        self._fixed: dict[_Shapes, _Requests] = {}
        self._expecting = threading.Lock()
        self._faults = _faults(ov)

    @property
    def placement(self) -> Mapping[str, int]:
        """How many operations run, after they were fused."""
        kinds = [
            operation.get_rt_info()["layerType"].astype(str)
            for operation in self._any.model.get_runtime_model().get_ops()
        ]
        return {PLACE: sum(kind not in _NO_OPERATION for kind in kinds)}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph; see `Session.run`.

        Raises:
            InvalidRequestError: An integer needs more than 32 bits, in which OpenVINO computes.
            InternalError: The graph failed on these inputs.
        """
        feeds = self._feeds(inputs)
        requests = self._fixed.get(_shapes(feeds), self._any) if self._fixed else self._any
        try:
            request = requests.idle.pop()
        except IndexError:
            request = requests.model.create_infer_request()
        try:
            arrays = list(request.infer(feeds, share_inputs=True).values())
        except self._faults as error:
            # The request is not kept: it would carry this run's shapes into the next.
            raise InternalError("model.failed", f"the model failed: {error}") from error
        requests.idle.append(request)
        return dict(zip(self._outputs, arrays, strict=True))

    def expect(self, inputs: Mapping[str, Array]) -> None:
        """Compiles the graph once more for exactly these shapes; see `Session.expect`.

        Such a model runs up to an eighth faster, and holds the weights a second time: so only for
        the first few shapes. It computes the same; where it cannot be had, the other one answers.
        """
        shapes = _shapes(inputs)
        with self._expecting:
            if not self._dynamic or shapes in self._fixed or len(self._fixed) == MOST_EXPECTED:
                return
            try:
                graph = self._graph.clone()
                graph.reshape({name: list(array.shape) for name, array in inputs.items()})
                compiled = self._core.compile_model(graph, DEVICE, self._settings)
            except self._faults:
                return
            self._fixed[shapes] = _Requests(compiled, deque())

    def _feeds(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs.keys() != self._inputs.keys():
            taken, got = ", ".join(self._inputs), ", ".join(inputs)
            raise InternalError("model.failed", f"the model takes {taken}, and got {got}")
        return {name: _to_engine(name, array, self._inputs[name]) for name, array in inputs.items()}


def _shapes(inputs: Mapping[str, Array]) -> _Shapes:
    return frozenset((name, array.shape) for name, array in inputs.items())


def _read(ov: Any, model: Path | bytes) -> Any:  # noqa: ANN401 - see load_onnxruntime
    """Parses a model as ONNX, whatever its name is.

    `Core.read_model` would try every format it knows, and would look for external data of bytes in
    the working directory; a path's external data may not leave the path's directory.
    """
    frontend = ov.frontend.FrontEndManager().load_by_framework("onnx")
    if isinstance(model, Path):
        return frontend.convert(frontend.load(str(model)))
    with tempfile.TemporaryDirectory() as empty:
        path = Path(empty) / "model.onnx"
        path.write_bytes(model)
        return frontend.convert(frontend.load(str(path)))


def _check_arithmetic(compiled: Any, arithmetic: Arithmetic) -> None:  # noqa: ANN401 - see load_onnxruntime
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != _HINTS[arithmetic][0]:
        raise _no_arithmetic(arithmetic, f"OpenVINO took {found}")


def _no_arithmetic(arithmetic: Arithmetic, instead: str) -> MissingError:
    return MissingError(
        "engine.arithmetic",
        f"OpenVINO cannot compute in {arithmetic} on this processor: {instead}",
        "take another variant, or a processor that has it",
    )


def _output(port: Any) -> str:  # noqa: ANN401 - see load_onnxruntime
    """The name of an output in the ONNX graph; the port may carry those of equal tensors too."""
    name = str(port.node.friendly_name).removesuffix(_SUFFIX)
    return name if name in port.names else str(port.any_name)


def _dtype(port: Any, name: str) -> np.dtype[np.generic]:  # noqa: ANN401 - see load_onnxruntime
    kind = port.element_type.get_type_name()
    if kind not in _COMPUTED:
        raise BundleError(
            "bundle.graph", f"the graph's '{name}' is {kind}, which OpenVINO does not compute in"
        )
    dtype: np.dtype[np.generic] = np.dtype(port.element_type.to_dtype())
    return dtype


def _to_engine(name: str, array: Array, dtype: np.dtype[np.generic]) -> Array:
    """An array that OpenVINO can read in place: native, in C order, aligned, writable."""
    if array.dtype.newbyteorder("=") != dtype:
        raise InternalError("model.failed", f"input '{name}' is {dtype}, and got {array.dtype}")
    if dtype == np.int64 and not _fits_int32(array):
        raise InvalidRequestError(
            "request.range",
            f"input '{name}' holds integers of more than 32 bits, which this model cannot take",
        )
    return np.require(array, dtype, ("C", "A", "W"))


def _fits_int32(array: Array) -> bool:
    if not array.size:
        return True
    return bool(_INT32.min <= array.min() and array.max() <= _INT32.max)


def _faults(ov: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - see load_onnxruntime
    """What openvino's binding raises; its exceptions share no base of their own."""
    own = (kind for name, kind in vars(ov.frontend).items() if name.endswith("Failure"))
    return (*own, RuntimeError, ValueError, TypeError)
