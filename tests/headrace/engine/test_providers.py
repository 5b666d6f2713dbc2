"""What execution providers are told."""

from pathlib import Path

import onnxruntime
import pytest
from bundles import linear_model

from headrace.bundle.manifest import Arithmetic, Precision
from headrace.engine.providers import CUDA, TENSORRT, provider_options
from headrace.engine.session import CPU, OrtSession
from headrace.errors import MissingError


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_absent_provider_is_an_error(provider: str) -> None:
    """Options do not make a provider appear, and the CPU does not take its place."""
    if provider in onnxruntime.get_available_providers():
        provider = "NoSuchProvider"
    options = provider_options(provider, arithmetic="fp32", precision="fp32")
    with pytest.raises(MissingError) as caught:
        OrtSession(linear_model(), provider=provider, options=options)
    assert caught.value.code == "provider.missing"


def test_cuda_computes_float32_as_float32() -> None:
    """TF32 is off, new shapes are not searched for, and graphs are captured only when asked."""
    options = provider_options(CUDA, arithmetic="fp32", precision="int8")
    assert options == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    captured = provider_options(CUDA, arithmetic="fp32", precision="fp32", cuda_graph=True)
    assert captured == {**options, "enable_cuda_graph": "1"}


@pytest.mark.parametrize(
    ("arithmetic", "precision", "enabled"),
    [
        ("fp32", "fp32", set()),
        ("fp16", "fp16", {"trt_fp16_enable"}),
        ("bf16", "bf16", {"trt_bf16_enable"}),
        ("fp32", "int8", {"trt_int8_enable"}),
        ("fp16", "int8", {"trt_fp16_enable", "trt_int8_enable"}),
    ],
)
def test_tensorrt_computes_in_what_the_variant_says(
    arithmetic: Arithmetic, precision: Precision, enabled: set[str]
) -> None:
    """Every arithmetic is switched on or off by name; without a directory nothing is cached."""
    options = provider_options(TENSORRT, arithmetic=arithmetic, precision=precision)
    assert {name for name, value in options.items() if value == "1"} == enabled
    assert set(options.values()) <= {"0", "1"}


def test_tensorrt_keeps_its_engines_in_the_directory_given(tmp_path: Path) -> None:
    """With a directory, engines and timings are kept there."""
    options = provider_options(TENSORRT, arithmetic="fp16", precision="fp16", cache=tmp_path)
    for name in ("trt_engine_cache", "trt_timing_cache"):
        assert options[f"{name}_enable"] == "1"
        assert options[f"{name}_path"] == str(tmp_path)


@pytest.mark.parametrize("provider", [CPU, CUDA, "NoSuchProvider"])
def test_arithmetic_that_a_provider_has_not_is_an_error(provider: str) -> None:
    """A provider that cannot be told to compute in 16 bits is not asked for fp32 instead."""
    with pytest.raises(MissingError) as caught:
        provider_options(provider, arithmetic="bf16", precision="bf16")
    assert caught.value.code == "engine.arithmetic"


def test_other_providers_keep_their_defaults() -> None:
    """The CPU, and providers that are not known here, are told nothing."""
    assert provider_options(CPU, arithmetic="fp32", precision="int8") == {}
