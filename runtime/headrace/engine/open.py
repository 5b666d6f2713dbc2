"""The one place where the variants of bundles become sessions."""

from pathlib import Path

from headrace.bundle.manifest import Variant
from headrace.engine.openvino import OpenVinoSession
from headrace.engine.prepared import PreparedGraph
from headrace.engine.providers import TENSORRT, provider_options
from headrace.engine.session import CPU, OrtSession, Session
from headrace.errors import UsageError


def open_session(
    path: Path,
    variant: Variant,
    *,
    provider: str = CPU,
    threads: int = 0,
    cache: PreparedGraph | None = None,
) -> Session:
    """Opens a variant on its engine.

    Args:
        path: Of its graph.
        provider: An execution provider of ONNX Runtime. OpenVINO runs on the CPU alone.
        threads: Of this session; 0 lets the engine take the cores.
        cache: Where ONNX Runtime keeps what it makes of this graph for this machine: on the CPU a
            graph with prepacked weights, with TensorRT its engines. Others keep nothing.

    Raises:
        UsageError: The variant's engine does not run on that provider.
        MissingError: The engine, the provider or the arithmetic is not to be had here.
        BundleError: The graph cannot be loaded.
    """
    if variant.engine == "openvino":
        if provider != CPU:
            raise UsageError(
                "engine.provider",
                f"variant '{variant.name}' runs on OpenVINO, which knows no {provider}",
                f"ask for {CPU}, or for a variant of ONNX Runtime",
            )
        return OpenVinoSession(path, arithmetic=variant.arithmetic, threads=threads)
    options = provider_options(
        provider,
        arithmetic=variant.arithmetic,
        precision=variant.precision,
        cache=cache.engines(variant) if cache is not None and provider == TENSORRT else None,
    )
    if provider == CPU and cache is not None:
        return cache.open(path, threads=threads)
    return OrtSession(path, provider=provider, threads=threads, options=options)
