"""One place opens the sessions of bundles, each on the engine that its variant names."""

from pathlib import Path

import numpy as np
import pytest
from bundles import GOOD, MODEL, WEIGHT

from headrace.bundle.manifest import Tolerance, Variant
from headrace.bundle.open import open_bundle
from headrace.engine.open import open_session
from headrace.engine.openvino import OpenVinoSession
from headrace.engine.prepared import GraphCache
from headrace.engine.session import CPU, OrtSession
from headrace.errors import BundleError, MissingError, UsageError

ROW = np.ones((1, 3), np.float32)
FP32 = Variant(
    name="fp32",
    precision="fp32",
    engine="onnxruntime",
    path=MODEL,
    tolerance=Tolerance(absolute=0, relative=0),
)
OPENVINO = FP32.model_copy(update={"engine": "openvino"})


@pytest.mark.parametrize(
    ("variant", "kind"), [(FP32, OrtSession), (OPENVINO, OpenVinoSession)], ids=["ort", "openvino"]
)
def test_variant_runs_on_its_engine(variant: Variant, kind: type[object]) -> None:
    """The same graph runs on the engine that the variant names, and nodes are placed on it."""
    session = open_session(GOOD / MODEL, variant, threads=1)
    assert isinstance(session, kind)
    np.testing.assert_allclose(session.run({"x": ROW})["y"].astype(np.float32), ROW @ WEIGHT)
    assert sum(session.placement.values()) > 0


def test_openvino_knows_no_provider_of_the_other_engine() -> None:
    """A variant of OpenVINO is not run on the CPU where a GPU was asked for."""
    with pytest.raises(UsageError, match="CUDAExecutionProvider") as caught:
        open_session(GOOD / MODEL, OPENVINO, provider="CUDAExecutionProvider")
    assert caught.value.code == "engine.provider"


def test_arithmetic_that_an_engine_has_not_is_an_error() -> None:
    """ONNX Runtime's CPU provider is not run in fp32 where bf16 was asked for."""
    with pytest.raises(MissingError) as caught:
        open_session(GOOD / MODEL, FP32.model_copy(update={"arithmetic": "bf16"}))
    assert caught.value.code == "engine.arithmetic"


def test_absent_provider_is_an_error() -> None:
    """A provider that is not there is never replaced by another."""
    with pytest.raises(MissingError, match=CPU) as caught:
        open_session(GOOD / MODEL, FP32, provider="NoSuchProvider")
    assert caught.value.code == "provider.missing"


@pytest.mark.parametrize("variant", [FP32, OPENVINO], ids=["ort", "openvino"])
def test_absent_graph_is_the_bundles_fault(tmp_path: Path, variant: Variant) -> None:
    """A graph that is not there is one error on every engine, with and without a cache."""
    bundle = open_bundle(GOOD)
    for cache in (None, GraphCache(tmp_path / "graphs").of(bundle.manifest, FP32)):
        with pytest.raises(BundleError) as caught:
            open_session(tmp_path / "absent.onnx", variant, cache=cache)
        assert caught.value.code == "bundle.graph"


def test_cache_is_used_where_one_is_given(tmp_path: Path) -> None:
    """With a cache ONNX Runtime's graphs are prepared; OpenVINO's are not."""
    bundle = open_bundle(GOOD)
    cache = GraphCache(tmp_path / "graphs").of(bundle.manifest, FP32)
    open_session(GOOD / MODEL, OPENVINO, cache=cache)
    assert not (tmp_path / "graphs").exists()
    session = open_session(GOOD / MODEL, FP32, cache=cache)
    np.testing.assert_array_equal(session.run({"x": ROW})["y"], ROW @ WEIGHT)
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "graphs").glob("[!.]*")] == [
        "linear"
    ]
