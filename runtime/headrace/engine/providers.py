"""What execution providers of GPUs are told, and why.

Sources: onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and
TensorRT-ExecutionProvider.html. A provider that is not here runs with its own defaults.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from headrace.bundle.manifest import Arithmetic, Precision
from headrace.errors import MissingError

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

CUDA_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        # The default, EXHAUSTIVE, times every algorithm at each new shape: the first batch of
        # every size would wait for it.
        "cudnn_conv_algo_search": "HEURISTIC",
        # On by default, it computes float32 with 10 bits of mantissa; fp32 means fp32 here.
        "use_tf32": "0",
    }
)
CUDA_GRAPH: Mapping[str, str] = MappingProxyType({"enable_cuda_graph": "1"})
"""A captured graph replays one shape, from and to buffers that are bound once (IOBinding)."""

TENSORRT_CACHE = ("trt_engine_cache", "trt_timing_cache")
"""Building an engine takes minutes. Each of these has an option `_enable` and an option `_path`."""

_TENSORRT_ARITHMETIC: Mapping[Arithmetic, Mapping[str, str]] = MappingProxyType(
    {
        "fp32": MappingProxyType({"trt_fp16_enable": "0", "trt_bf16_enable": "0"}),
        "fp16": MappingProxyType({"trt_fp16_enable": "1", "trt_bf16_enable": "0"}),
        "bf16": MappingProxyType({"trt_fp16_enable": "0", "trt_bf16_enable": "1"}),
    }
)


def provider_options(
    provider: str,
    *,
    arithmetic: Arithmetic,
    precision: Precision,
    cache: Path | None = None,
    cuda_graph: bool = False,
) -> dict[str, str]:
    """The options of an execution provider of ONNX Runtime.

    Args:
        arithmetic: In which it is told to compute what the graph declares as float32.
        precision: Of the graph; `int8` means that it holds QuantizeLinear and DequantizeLinear.
        cache: A directory for what TensorRT builds; without it every load builds it anew.
        cuda_graph: Capture CUDA's work once and replay it. Only for a model whose shapes are all
            static, run on buffers that are bound once; `OrtSession.run` does not bind any.

    Raises:
        MissingError: The provider computes float32 in no other arithmetic.
    """
    if provider == TENSORRT:
        return {
            **_TENSORRT_ARITHMETIC[arithmetic],
            "trt_int8_enable": "1" if precision == "int8" else "0",
            **_tensorrt_cache(cache),
        }
    if arithmetic != "fp32":
        raise MissingError(
            "engine.arithmetic",
            f"{provider} computes float32 as float32, and {arithmetic} was asked for",
            "use a variant whose graph itself is in that precision, or another engine",
        )
    if provider == CUDA:
        return {**CUDA_OPTIONS, **(CUDA_GRAPH if cuda_graph else {})}
    return {}


def _tensorrt_cache(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {f"{name}_enable": "0" for name in TENSORRT_CACHE}
    enabled = {f"{name}_enable": "1" for name in TENSORRT_CACHE}
    return enabled | {f"{name}_path": str(cache) for name in TENSORRT_CACHE}
