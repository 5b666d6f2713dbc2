"""Ranges of activations, found in one pass."""

import tracemalloc
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from networks import columns, columns_graph, pictures_graph, pixels, texts_graph, tokens

from headrace.errors import CheckError, UsageError
from headrace.tensors import Array
from headrace_compiler.steps.calibrate import METHODS, Ranges, calibrate
from headrace_compiler.steps.prepare import prepare


def bounds(ranges: Ranges) -> dict[str, tuple[float, float]]:
    """By tensor."""
    return {each.name: (each.low, each.high) for each in ranges.tensors}


def test_one_pass_gives_the_ranges_of_every_method() -> None:
    """The least and largest value are exact, and the other ranges lie inside them."""
    batches = [pixels(3, seed) for seed in range(4)]
    found = calibrate(prepare(pictures_graph()), iter(batches))
    assert tuple(found) == METHODS
    wide = bounds(found["minmax"])
    every = np.concatenate([batch["pixels"] for batch in batches])
    assert wide["pixels"] == (float(every.min()), float(every.max()))
    for method in METHODS:
        narrow = bounds(found[method])
        assert list(narrow) == sorted(wide)
        assert all(
            wide[name][0] <= low <= high <= wide[name][1] for name, (low, high) in narrow.items()
        )
        assert Ranges.model_validate_json(found[method].model_dump_json()) == found[method]


def test_only_what_may_be_quantized_is_looked_at() -> None:
    """Weights are not, nor are the scores of an attention, whose mask has no useful range."""
    found = bounds(calibrate(prepare(texts_graph()), [tokens(2, 7)])["minmax"])
    assert found
    assert all(abs(bound) < 1e4 for both in found.values() for bound in both)
    assert not any("weight" in name or "bias" in name for name in found)


def test_ranges_do_not_depend_on_the_batches() -> None:
    """The same rows in one batch or in many give the same ranges."""
    graph = prepare(pictures_graph())
    whole = pixels(11)
    rows = [{"pixels": whole["pixels"][place : place + 1]} for place in range(11)]
    assert calibrate(graph, [whole]) == calibrate(graph, rows)


def test_lengths_may_vary() -> None:
    """Texts of several lengths calibrate one graph."""
    graph = prepare(texts_graph())
    found = calibrate(graph, (tokens(2, length) for length in (3, 9, 17)))
    assert all(
        np.isfinite(low) and np.isfinite(high) for low, high in bounds(found["minmax"]).values()
    )


def test_memory_does_not_grow_with_the_samples() -> None:
    """Ten times the samples, in a batch ten times as large, need no more memory at once."""

    def peak(rows: int) -> int:
        graph, batch = prepare(pictures_graph()), pixels(rows)
        tracemalloc.start()
        try:
            calibrate(graph, [batch])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)
    assert peak(400) < 1.1 * peak(40)


def test_without_samples_there_is_no_calibration() -> None:
    """An empty iterable is the recipe's fault."""
    with pytest.raises(UsageError) as caught:
        calibrate(prepare(columns_graph()), iter(()))
    assert caught.value.code == "calibration.empty"


@pytest.mark.parametrize("bad", [np.nan, np.inf, np.float32(3e38)])
def test_activations_must_be_finite(bad: float) -> None:
    """NaN, infinity, and numbers so large that a layer overflows are refused, with the sample."""

    def batches() -> Iterator[Mapping[str, Array]]:
        yield columns(2)
        broken = columns(2)
        broken["columns"][:] = bad
        yield broken

    with pytest.raises(CheckError) as caught:
        calibrate(prepare(columns_graph()), batches())
    assert caught.value.code == "calibration.not-finite"
    assert "sample 1" in caught.value.message
