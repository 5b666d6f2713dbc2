"""Sketches: how the samples' values are distributed, as content that depends on nothing else."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasketches import kll_floats_sketch

from headrace.bundle.manifest import is_safe_path
from headrace.tensors import Array, Datatype, TensorSpec
from headrace_compiler.steps.sketch import K, Sketch, sketch


def _spec(*shape: int | str, datatype: Datatype = "FP32", name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def _sketches(spec: TensorSpec, arrays: Sequence[Array]) -> tuple[Sketch, ...]:
    return sketch([{spec.name: array} for array in arrays], [], [spec], [])


def _read(made: Sketch) -> Any:  # noqa: ANN401 - datasketches has no types
    return kll_floats_sketch.deserialize(made.content)


def test_small_rows_have_a_sketch_a_place() -> None:
    """Every place of a row of at most 64 numbers is sketched apart, over all axes."""
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    found = _sketches(_spec("batch", 2, 3), [rows[:1], rows[1:]])
    assert [(made.entry.kind, made.entry.feature) for made in found] == [
        ("feature", place) for place in range(6)
    ]
    entry = found[4].entry
    assert (entry.count, entry.nan_count, entry.low, entry.high) == (4, 0, 4.0, 22.0)
    assert entry.path == "sketches/input.x.4.bin"
    assert _read(found[4]).get_quantiles([0.0, 0.5, 1.0]) == [4.0, 16.0, 22.0]


def test_large_rows_have_all_values_and_the_mean_of_each() -> None:
    """Of a larger row, all values are sketched, and the means of the rows."""
    rows = np.arange(2.0 * 65).reshape(2, 65).astype(np.float32)
    values, means = _sketches(_spec("batch", 65), [rows])
    assert (values.entry.kind, values.entry.count) == ("values", 130)
    assert (values.entry.low, values.entry.high) == (0.0, 129.0)
    assert (means.entry.kind, means.entry.count) == ("row_mean", 2)
    assert (means.entry.low, means.entry.high) == (32.0, 97.0)


def test_rows_of_any_length_have_no_places() -> None:
    """Where a request chooses the length of a row, its places mean nothing, short as it may be."""
    short, long = np.ones((1, 2), np.float32), np.full((1, 5), 3, np.float32)
    values, means = _sketches(_spec("batch", "n"), [short, long])
    assert (values.entry.count, means.entry.count) == (7, 2)
    assert (means.entry.low, means.entry.high) == (1.0, 3.0)


def test_without_a_batch_a_sample_is_a_row() -> None:
    """Of a model that is not batched, the whole tensor is one row."""
    found = _sketches(_spec(2), [np.array([1.0, 2.0], np.float32), np.zeros(2, np.float32)])
    assert [made.entry.high for made in found] == [1.0, 2.0]
    (scalar,) = _sketches(_spec(), [np.array(5.0, np.float32)])
    assert (scalar.entry.count, scalar.entry.feature) == (1, 0)


@pytest.mark.parametrize(
    ("datatype", "values", "high"),
    [
        ("BOOL", np.array([[False], [True], [True]]), 1.0),
        ("INT64", np.array([[1], [-7], [2**40]]), 2.0**40),
        ("UINT8", np.array([[0], [255], [3]], np.uint8), 255.0),
        ("FP16", np.array([[0.5], [1.5], [0]], np.float16), 1.5),
        ("FP64", np.array([[0.0], [1e300], [3]]), 1e300),
    ],
)
def test_every_datatype_is_sketched(datatype: Datatype, values: Array, high: float) -> None:
    """Integers count as floats, BOOL as 0 and 1; the bounds are exact where float32 is not."""
    (made,) = _sketches(_spec("batch", 1, datatype=datatype), [values])
    assert made.entry.high == high
    with np.errstate(over="ignore"):
        assert _read(made).get_max_value() == np.float32(high)
    assert _read(made).n == 3


def test_nan_is_counted_apart_and_infinity_is_a_value() -> None:
    """NaN is in no sketch; an infinity is in the sketch, and no bound."""
    rows = np.array([[np.nan], [1], [-np.inf], [np.nan], [2]], np.float32)
    (made,) = _sketches(_spec("batch", 1), [rows])
    entry = made.entry
    assert (entry.count, entry.nan_count, entry.low, entry.high) == (3, 2, 1.0, 2.0)
    assert _read(made).get_min_value() == -np.inf
    both = np.tile(np.array([np.inf, -np.inf], np.float32), (1, 40))
    _, means = _sketches(_spec("batch", 80), [both])
    assert (means.entry.count, means.entry.nan_count, means.entry.low) == (0, 1, None)
    assert _read(means).is_empty()


def test_constants_and_empty_rows_are_fine() -> None:
    """A constant has a sketch of one value; rows without numbers have none to sketch."""
    (made,) = _sketches(_spec("batch", 1), [np.full((5000, 1), 3, np.float32)])
    assert (made.entry.count, made.entry.low, made.entry.high) == (5000, 3.0, 3.0)
    assert _read(made).get_quantiles([0.0, 0.5, 1.0]) == [3.0, 3.0, 3.0]
    assert _sketches(_spec("batch", 0), [np.zeros((3, 0), np.float32)]) == ()
    values, means = _sketches(_spec("batch", "n"), [np.zeros((2, 0), np.float32)])
    assert (values.entry.count, means.entry.count) == (0, 0)


def test_up_to_k_values_nothing_is_compacted() -> None:
    """The bound on which determinism stands: K values are retained exactly, and one more is not."""
    for count, exact in ((K, True), (K + 1, False)):
        made = kll_floats_sketch(K)
        made.update(np.arange(count, dtype=np.float32))
        assert (made.num_retained == count, made.is_estimation_mode()) == (exact, not exact)


@pytest.mark.parametrize("count", [1, 10, K - 1, K, K + 1, 2 * K, 10_000, 300_001])
def test_quantiles_are_near(count: int) -> None:
    """A sketch's ranks are within 2/K of the values', and exact up to K values."""
    values = np.random.default_rng(count).lognormal(size=(count, 1)).astype(np.float32)
    (made,) = _sketches(_spec("batch", 1), [values])
    read = _read(made)
    assert made.entry.count == count
    assert read.n == min(count, K)
    assert not read.is_estimation_mode()
    probes = np.quantile(values, np.linspace(0, 1, 101)).astype(np.float32)
    true = np.searchsorted(np.sort(values[:, 0]), probes, side="right") / count
    found = [read.get_rank(float(probe), inclusive=True) for probe in probes]
    error = float(np.abs(np.array(found) - true).max())
    assert error <= (1e-12 if count <= K else 2 / K)
    assert (read.get_min_value(), read.get_max_value()) == (values.min(), values.max())


def test_sketches_merge_with_live_ones() -> None:
    """What is content can be merged with a sketch that a service makes."""
    (made,) = _sketches(_spec("batch", 1), [np.arange(100, dtype=np.float32)[:, None]])
    live = kll_floats_sketch(200)
    live.update(np.arange(100, 200, dtype=np.float32))
    live.merge(_read(made))
    assert (live.n, live.get_min_value(), live.get_max_value()) == (200, 0.0, 199.0)


SCRIPT = """
import hashlib
import numpy as np
from headrace.tensors import TensorSpec
from headrace_compiler.steps.sketch import sketch
generator = np.random.default_rng(0)
specs = [TensorSpec(name=name, datatype="FP32", shape=("batch", size))
         for name, size in (("x", 3), ("y", 700))]
samples = [{spec.name: generator.standard_normal((50, spec.shape[1])) for spec in specs}
           for _ in range(40)]
for made in sketch(samples, samples, specs, specs):
    print(made.entry, hashlib.sha256(made.content).hexdigest())
"""


def test_two_processes_give_equal_bytes() -> None:
    """Content depends on the values alone: no seed, time or address comes in."""
    outputs = [
        subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"\n") == 2 * (3 + 2)


def test_equal_values_give_equal_bytes() -> None:
    """Neither the order of the samples nor the sign of a zero makes a difference."""
    rows = np.random.default_rng(0).standard_normal((3000, 1)).astype(np.float32).round(1)
    one, other = (_sketches(_spec("batch", 1), [part])[0] for part in (rows, rows[::-1] + 0.0))
    assert one == other


def test_files_have_names_of_their_own() -> None:
    """Inputs and outputs of any name have paths that a bundle takes, no two of them equal."""
    specs = [_spec("batch", 2, name=name) for name in ("x", "x.0", "x-1", "_", "n" * 128)]
    samples = [{spec.name: np.zeros((1, 2), np.float32) for spec in specs}]
    found = sketch(samples, samples, specs, specs)
    paths = [made.entry.path for made in found]
    assert len(set(paths)) == len(paths) == 20
    assert all(is_safe_path(path) for path in paths)
