"""Batches made of sample rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace_compiler.batches import compose


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 9))
def test_a_batch_has_the_rows_asked_for(sizes: list[int], rows: int) -> None:
    """Real rows come first and unchanged, repeated ones are near them, and twice is the same."""
    generator = np.random.default_rng(1)
    samples = [{"x": generator.standard_normal((size, 5)).astype(np.float32)} for size in sizes]
    real = np.concatenate([sample["x"] for sample in samples])
    batch = compose(samples, rows)["x"]
    assert batch.shape == (rows, 5)
    assert batch.dtype == np.float32
    assert np.array_equal(batch[: len(real)], real[:rows])
    assert np.allclose(batch, real[np.arange(rows) % len(real)], atol=0.2)
    assert np.array_equal(batch, compose(samples, rows)["x"])


def test_repeated_rows_differ_only_if_they_are_real_numbers() -> None:
    """Token numbers and flags are repeated as they are; real numbers get noise."""
    samples = [{"x": np.ones((1, 3), np.float64) * [1, 2, 3], "n": np.array([[4, 5]])}]
    batch = compose(samples, 3)
    assert np.array_equal(batch["n"], [[4, 5]] * 3)
    assert not np.array_equal(batch["x"][1], batch["x"][0])


def test_samples_of_another_shape_stay_out() -> None:
    """Rows are stacked only if every other axis agrees with the first sample's."""
    samples = [{"x": np.zeros((1, 3))}, {"x": np.ones((1, 4))}, {"x": np.ones((1, 3))}]
    assert compose(samples, 2)["x"].tolist() == [[0, 0, 0], [1, 1, 1]]
