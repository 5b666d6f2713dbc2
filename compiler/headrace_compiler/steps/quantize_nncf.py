"""Int8 weights and activations by NNCF, which corrects the biases and smooths transformers.

NNCF reports its use over the network where it can. It cannot here: the package that would do it
is kept from being imported.
"""

import contextlib
import importlib
import importlib.util
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Literal

import onnx
import onnx_ir as ir

from headrace.errors import CheckError, MissingError, UsageError
from headrace.tensors import Array
from headrace_compiler.boundary import Translated, first_line
from headrace_compiler.finish import finish
from headrace_compiler.graph import Graph
from headrace_compiler.muted import muted
from headrace_compiler.seeds import seeded
from headrace_compiler.shield import shield
from headrace_compiler.unsigned import make_unsigned

Preset = Literal["mixed", "performance"]
SAMPLES = 300
"""How many batches NNCF looks at, at most; they are held in memory."""
_REPORTER = "openvino_telemetry"


def quantize_nncf(
    graph: Graph,
    batches: Iterable[Mapping[str, Array]],
    *,
    preset: Preset,
    transformer: bool,
    seed: int,
    reduce_range: bool = False,
    uniform: bool = False,
) -> Graph:
    """The graph with int8 weights, per channel, and pairs of quantization between the layers.

    Args:
        graph: As `prepare` returns it, not fused: NNCF does not know ONNX Runtime's operators.
        batches: Inputs by name, to find ranges and to correct biases with; the first `SAMPLES`.
        preset: `performance` takes ranges of activations that are symmetric around zero, `mixed`
            any that hold it.
        transformer: Whether to keep in float32 what transformers are known to need in it.
        seed: Of NumPy and `random` meanwhile.
        reduce_range: Whether weights keep to seven bits; see `activation_types`.
        uniform: Whether all activations are uint8 with one scale a tensor. ONNX Runtime has fast
            kernels for nothing else on x86; OpenVINO takes what NNCF finds best.

    Raises:
        MissingError: NNCF is not installed.
        UsageError: There are no batches, or NNCF was imported elsewhere with its reports on.
        CheckError: NNCF cannot quantize the graph.
    """
    samples = [dict(batch) for batch in itertools.islice(batches, SAMPLES)]
    if not samples:
        raise UsageError(
            "calibration.empty",
            "there are no samples to calibrate with",
            "let the recipe's calibration() return some",
        )
    with Translated(_fault), muted(), silenced():
        nncf = load_nncf()
        with seeded(seed):
            made = nncf.quantize(
                onnx.ModelProto.FromString(graph.content),
                nncf.Dataset(samples),
                preset=nncf.QuantizationPreset(preset),
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(samples),
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix("enable" if reduce_range else "disable"),
                    activations_quantization_params=_by_tensor(nncf) if uniform else None,
                ),
            )
        model = ir.from_proto(made)
        if uniform:
            make_unsigned(model)
        shield(model)
    return finish(model, graph)


def _by_tensor(nncf: ModuleType) -> object:
    """One scale a tensor. That activations be uint8 cannot be asked of NNCF for a CPU."""
    module = importlib.import_module(f"{nncf.__name__}.quantization.advanced_parameters")
    return module.QuantizationParameters(per_channel=False)


def load_nncf() -> ModuleType:
    """The nncf module, kept from telling its maker that it was used.

    Importing it sets the class of everybody's loggers: do it inside `silenced`.

    Raises:
        MissingError: It is not installed.
        UsageError: Something imported it before, and it would report.
    """
    if importlib.util.find_spec("nncf") is None:
        raise MissingError(
            "extra.compiler",
            "nncf, which quantizes, is not installed",
            "pip install 'headrace[cpu,compiler]'",
        )
    with _unimportable(_REPORTER):
        import nncf  # noqa: PLC0415 - it takes seconds, and must not find the reporter
        from nncf.telemetry.wrapper import ITelemetry, telemetry  # noqa: PLC0415
    if isinstance(telemetry, ITelemetry):
        raise UsageError(
            "nncf.telemetry",
            "nncf was imported before this step, and would report its use over the network",
            "do not import nncf in the recipe",
        )
    module: ModuleType = nncf
    return module


@contextlib.contextmanager
def _unimportable(name: str) -> Iterator[None]:
    """Lets a package pass for one that is not installed."""
    before = sys.modules.get(name)
    # This is how Python spells "cannot be imported".
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keeps NNCF's log to itself, and the class of other people's loggers as it was."""
    logger, kind = logging.getLogger("nncf"), logging.getLoggerClass()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        logging.setLoggerClass(kind)


def _fault(error: BaseException) -> CheckError:
    return CheckError("graph.quantize", f"NNCF cannot quantize the graph: {first_line(error)}")
