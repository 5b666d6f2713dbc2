"""A session runs one graph on one provider, chosen by name and never silently another."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace.errors import BundleError, InternalError, InvalidRequestError, MissingError
from headrace.tensors import Array

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
MAX_THREADS = 1024
"""Of one session; more is a mistake, and would start them all."""
GRAPH_FILE = "graph.onnx"
WEIGHTS_FILE = "weights.bin"
"""What `OrtSession` saves an optimized graph and its prepacked weights as."""

_EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_SAVED_FROM_BYTES = 1024
"""Smaller weights stay in the graph: a page of the other file is shared, a few bytes are not."""


class Session(Protocol):
    """What the pipeline needs of an engine."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Prepared tensors by name in, every output by name out. Safe to call from many threads."""
        ...

    def expect(self, inputs: Mapping[str, Array]) -> None:
        """Tells that inputs of these shapes will come often, so that the engine can prepare.

        Nothing else follows: inputs of all declared shapes are answered as before.
        """
        ...

    @property
    def placement(self) -> Mapping[str, int]:
        """How many nodes of the graph run where."""
        ...


def load_onnxruntime() -> Any:  # noqa: ANN401 - the module publishes no types
    """The onnxruntime module.

    Raises:
        MissingError: Neither onnxruntime nor onnxruntime-gpu is installed.
    """
    try:
        import onnxruntime as ort  # noqa: PLC0415 - an edge without an engine still answers --help
    except ImportError as error:
        raise MissingError(
            "extra.engine",
            "no engine is installed: onnxruntime cannot be imported",
            "pip install 'headrace[cpu]', or 'headrace[gpu]' on a machine with a CUDA GPU",
        ) from error
    return ort


class OrtSession:
    """An ONNX Runtime session on exactly one provider, with the CPU for what it cannot place.

    Args:
        model: A path, or the bytes of a model without external data.
        provider: An execution provider's name.
        threads: Of one operator, in this session; 0 lets ONNX Runtime take the physical cores.
        options: Of the provider; see `headrace.engine.providers`.
        optimize: False for a graph that was saved by a session of this processor.
        save_to: A directory to save the optimized graph and its prepacked weights in, for later
            sessions on this processor.

    Raises:
        MissingError: The provider is not in the installed onnxruntime, or found no device.
        BundleError: The graph cannot be loaded, or not be saved.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        provider: str = CPU,
        threads: int = 0,
        options: Mapping[str, str] | None = None,
        optimize: bool = True,
        save_to: Path | None = None,
    ) -> None:
        ort = load_onnxruntime()
        available = ort.get_available_providers()
        if provider not in available:
            raise _no_provider(provider, available)
        settings = _settings(ort, threads, optimize=optimize, save_to=save_to)
        source = str(model) if isinstance(model, Path) else model
        if isinstance(source, bytes):
            # External data of bytes would otherwise be looked for in the working directory.
            settings.add_session_config_entry(_EXTERNAL_DATA_FOLDER, os.devnull)
        chosen = (provider, dict(options or {}))
        try:
            # The binding would otherwise go on with the CPU, and say so on standard output.
            session = ort.InferenceSession(
                source,
                sess_options=settings,
                providers=[chosen] if provider == CPU else [chosen, CPU],
                enable_fallback=False,
            )
        except _faults(ort) as error:
            shown = model.name if isinstance(model, Path) else "the model"
            raise BundleError(
                "bundle.graph", f"ONNX Runtime cannot load {shown}: {error}"
            ) from error
        if session.get_providers()[0] != provider:
            raise _no_provider(provider, session.get_providers())
        for node in (*session.get_inputs(), *session.get_outputs()):
            if not node.type.startswith("tensor("):
                raise BundleError(
                    "bundle.graph", f"the graph's '{node.name}' is a {node.type}, and no tensor"
                )
        self._session: onnxruntime.InferenceSession = session
        self._outputs = tuple(output.name for output in session.get_outputs())
        self._faults = _faults(ort)

    @property
    def placement(self) -> Mapping[str, int]:
        """How many nodes each execution provider was given, of the graph as it was loaded."""
        counts: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            counts[part.ep_name] += len(part.get_nodes())
        return counts

    def expect(self, inputs: Mapping[str, Array]) -> None:
        """Nothing to prepare; see `Session.expect`."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph; see `Session.run`.

        Raises:
            InvalidRequestError: A string input is not UTF-8, which ONNX Runtime cannot take.
            InternalError: The graph failed on these inputs.
        """
        feeds = {name: _to_engine(name, array) for name, array in inputs.items()}
        try:
            arrays = self._session.run(self._outputs, feeds)
        except self._faults as error:
            raise InternalError("model.failed", f"the model failed: {error}") from error
        return {name: _to_bytes(array) for name, array in zip(self._outputs, arrays, strict=True)}


def _settings(ort: Any, threads: int, *, optimize: bool, save_to: Path | None) -> Any:  # noqa: ANN401 - see load_onnxruntime
    """The options of a session; onnxruntime's `onnxruntime_session_options_config_keys.h`."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    entries = {"session.record_ep_graph_assignment_info": "1"}
    if not optimize:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_to is not None:
        settings.optimized_model_filepath = str(save_to / GRAPH_FILE)
        entries |= {
            "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
            "session.optimized_model_external_initializers_min_size_in_bytes": str(
                _SAVED_FROM_BYTES
            ),
            "session.save_external_prepacked_constant_initializers": "1",
        }
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    return settings


def _to_engine(name: str, array: Array) -> Array:
    """An array as ONNX Runtime's binding takes it.

    It ignores the byte order of numbers, and carries BYTES as `str` alone.
    """
    if array.dtype != object:
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    try:
        texts = [element.decode() for element in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "request.text", f"input '{name}' holds bytes that are not UTF-8 text"
        ) from error
    return np.array(texts, dtype=object).reshape(array.shape)


def _to_bytes(array: Array) -> Array:
    """BYTES as the rest of headrace holds them: an object array of `bytes`."""
    if array.dtype != object:
        return array
    encoded = [element.encode() for element in array.ravel().tolist()]
    return np.array(encoded, dtype=object).reshape(array.shape)


def _faults(ort: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - see load_onnxruntime
    """What onnxruntime's binding raises; its exceptions share no base of their own."""
    kinds = vars(ort.capi.onnxruntime_pybind11_state).values()
    own = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)


def _no_provider(provider: str, available: Sequence[str]) -> MissingError:
    return MissingError(
        "provider.missing",
        f"provider {provider} was asked for, and this machine has {', '.join(available)}",
        "install the onnxruntime that holds it, or ask for another provider",
    )
