"""Arithmetic as ONNX operators: every engine divides whole numbers exactly."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.tape import Tape

from headrace.engine.openvino import OpenVinoSession
from headrace.engine.session import OrtSession, Session
from headrace.tensors import Array
from headrace_compiler.kernels.onnx_terms import Term, Writer, divided, rounded

MOST = 2**31 - 2**16
SIDES = st.integers(1, 65_535)


def session(engine: Callable[..., Session]) -> Session:
    """Quotient, remainder and rounded quotient of `n` by `d`, all INT64 (k)."""
    whole = ir.TensorType(ir.DataType.INT64)
    inputs = [ir.Value(name=name, type=whole, shape=ir.Shape(["k"])) for name in ("n", "d")]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}, name="divided")
    writer = Writer(Tape(graph), "terms")
    n, d = (Term(writer, value) for value in inputs)
    results = (*divided(n, d), rounded(n, d))
    for name, made in zip(("quotient", "remainder", "rounded"), results, strict=True):
        made.value.name, made.value.type, made.value.shape = name, whole, ir.Shape(["k"])
        graph.outputs.append(made.value)
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return engine(content, threads=1)


@pytest.fixture(scope="module")
def sessions() -> tuple[Session, ...]:
    """On each engine."""
    return session(OrtSession), session(OpenVinoSession)


def arrays(pairs: list[tuple[int, int]]) -> Mapping[str, Array]:
    """Numerators and denominators."""
    n, d = np.array(pairs, np.int64).T
    return {"n": n.copy(), "d": d.copy()}


def near_multiples(pair: tuple[int, int]) -> list[tuple[int, int]]:
    """A numerator, and those next to the multiple of the denominator below it."""
    n, d = pair
    multiple = n - n % d
    return [(n, d), *((near, d) for near in (multiple - 1, multiple, multiple + 1))]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1 - 2**30, MOST - 1), st.one_of(st.integers(1, 99), st.integers(1, MOST))
        ),
        min_size=1,
        max_size=50,
    )
)
def test_quotients_are_rounded_down(
    sessions: tuple[Session, ...], pairs: list[tuple[int, int]]
) -> None:
    """Also of large and of negative numbers, and next to a multiple."""
    inputs = arrays([near for pair in pairs for near in near_multiples(pair)])
    wanted, left = np.divmod(inputs["n"], inputs["d"])
    for each in sessions:
        found = each.run(inputs)
        np.testing.assert_array_equal(found["quotient"], wanted)
        np.testing.assert_array_equal(found["remainder"], left)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SIDES, st.integers(1, 16_384), SIDES), min_size=1, max_size=50))
def test_sizes_are_rounded_halves_up(
    sessions: tuple[Session, ...], sizes: list[tuple[int, int, int]]
) -> None:
    """Of any side of an image, scaled by any two whole numbers."""
    inputs = arrays([(side * wanted, other) for side, wanted, other in sizes])
    right = [(2 * side * wanted + other) // (2 * other) for side, wanted, other in sizes]
    for each in sessions:
        np.testing.assert_array_equal(each.run(inputs)["rounded"], right)
