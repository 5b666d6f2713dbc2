"""Keys of steps: whatever a result may depend on changes them, and nothing else does."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.tensors import Frozen, TensorSpec
from headrace_compiler.cache_keys import digest, package_digest, source_digest, step_key
from headrace_compiler.loading import importable
from headrace_compiler.steps.samples import Samples
from headrace_compiler.steps.simplify import simplify

SPEC = TensorSpec(name="x", datatype="FP32", shape=("batch", 3))


@dataclass(frozen=True)
class One:
    """A record."""

    value: object


@dataclass(frozen=True)
class Two:
    """A record of the same fields."""

    value: object


class Named(Frozen):
    """A model, one of whose fields is called digest."""

    digest: str
    more: int


def step(first: object, second: object = None) -> None:
    """A step."""


VALUES = [
    *(None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, math.nan, math.inf, "", "0", "None", b"", b"0"),
    *((), (0,), (0, 0), ((0,), 0), (0, (0,)), {}, {"a": 0}, {"b": 0}, {"a": {"b": 0}}),
    *({"a": 0, "b": 1}, {"b": 1, "a": 0}, frozenset(), frozenset({1}), frozenset({(1,)})),
    *(One(0), Two(0), One(1), SPEC, SPEC.model_copy(update={"name": "y"})),
    *(Named(digest="a", more=0), Named(digest="a", more=1)),
    *(np.zeros(2), np.zeros((2, 1)), np.zeros((1, 2)), np.zeros(2, np.float32)),
    *(np.zeros(2, ">f8"), np.ones(2), np.zeros(16, np.uint8), np.float32(0)),
    *(Samples((), (), "a"), Samples((), (), "b")),
    *("ab", ("a", "b"), ("ab", ""), ("", "ab"), "\ud800"),
]


def test_values_that_differ_have_digests_that_differ() -> None:
    """No two values of unlike type, shape, order or content share a digest."""
    found: dict[str, object] = {}
    for value in VALUES:
        other = found.setdefault(digest(value), value)
        assert other is value, f"{other!r} and {value!r}"


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(nested, nested)
def test_digests_are_equal_where_values_are(one: object, other: object) -> None:
    """A digest is a function of the value, and tells values apart by type as well."""
    assert digest(one) == digest(one)
    assert (digest(one) == digest(other)) == (repr(one) == repr(other))


def test_what_a_digest_does_not_see() -> None:
    """The order of a set, a list in place of a tuple, and an array's strides make no difference."""
    assert digest({"b", "a", "c"}) == digest(frozenset({"c", "b", "a"}))
    assert digest([1, 2]) == digest((1, 2))
    grid = np.arange(6).reshape(2, 3)
    assert digest(grid.T) == digest(grid.T.copy())


def test_digests_are_the_same_in_another_process() -> None:
    """Neither the order in which a process hashes nor its addresses come in."""
    code = (
        "from headrace_compiler.cache_keys import digest, package_digest\n"
        "print(digest({'a', 'b', 'c', ('d', 1.5)}), package_digest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert package_digest().encode() in outputs.pop()


@pytest.mark.parametrize(
    "value",
    [print, lambda: 0, Path(), object(), sys.stdout, One, np.array([object()]), iter(()), 1j],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_digest_is_named(value: object) -> None:
    """Functions, paths, files and the like are an error that says where they are."""
    with pytest.raises(TypeError, match=r"tune: second\[1\]\.value\['a'\]"):
        step_key("tune", step, (1,), {"second": (0, One({"a": value}))}, {})


def test_a_key_depends_on_all_of_a_call() -> None:
    """The name, the function, each argument and each tool change the key, and the spelling not."""
    key = step_key("tune", step, (1, 2), {}, {"a": "1", "b": "2"})
    assert key.startswith("tune-")
    same = step_key("tune", step, (1,), {"second": 2}, {"b": "2", "a": "1"})
    others = [
        step_key("fuse", step, (1, 2), {}, {"a": "1", "b": "2"}),
        step_key("tune", simplify, (1,), {}, {"a": "1", "b": "2"}),
        step_key("tune", step, (2, 1), {}, {"a": "1", "b": "2"}),
        step_key("tune", step, (1,), {}, {"a": "1", "b": "2"}),
        step_key("tune", step, (1, 2), {}, {"a": "1", "b": "3"}),
        step_key("tune", step, (1, 2), {}, {"a": "1"}),
    ]
    assert same == key
    assert len({key.partition("-")[2], *(other.partition("-")[2] for other in others)}) == 7


def test_a_step_is_a_plain_function() -> None:
    """Closures, partials and methods hide what they depend on, and have no key."""
    hidden = 1

    def closure(first: object) -> object:
        return first, hidden

    for wrong in (closure, partial(step, 1), One(0).__repr__):
        with pytest.raises(TypeError, match="no plain function"):
            step_key("tune", wrong, (), {}, {})
    with pytest.raises(ValueError, match="no name of a step"):
        step_key("../tune", step, (1,), {}, {})


METRICS = """
def score(outputs, label):
    return 1.0

def make(k):
    def top(outputs, label):
        return k
    return top

both = [lambda o, l: 1.0, lambda o, l: 2.0]
unknown = make(print)
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], ModuleType]:
    """Loads a module of metrics from its text."""

    def read(text: str) -> ModuleType:
        (tmp_path / "metrics_of_mine.py").write_text(text)
        with importable(tmp_path):
            import metrics_of_mine  # type: ignore[import-not-found]  # noqa: PLC0415

            return metrics_of_mine  # type: ignore[no-any-return]

    return read


def test_source_tells_functions_apart(load: Callable[[str], ModuleType]) -> None:
    """Functions of one file, of one line, or bound to other values have other digests."""
    module = load(METRICS)
    functions = [module.score, module.make, module.make(1), module.make(2), *module.both]
    found = [source_digest(function) for function in functions]
    assert len(set(found)) == len(found)
    again = load(METRICS)
    assert source_digest(again.make(2)) == source_digest(module.make(2))


def test_an_edit_of_the_file_changes_the_digest(load: Callable[[str], ModuleType]) -> None:
    """Whatever is changed in a function's file counts, since it may call it."""
    before = source_digest(load(METRICS).score)
    assert source_digest(load(METRICS).score) == before
    assert source_digest(load(f"{METRICS}# changed\n").score) != before


def test_what_has_no_source_is_refused(load: Callable[[str], ModuleType]) -> None:
    """Built-ins, objects, functions without a file or bound to what has no digest are errors."""
    scope: dict[str, Callable[..., object]] = {}
    exec("def typed(): pass", scope)  # noqa: S102 - a function without a file
    for wrong in (print, partial(step, 1), scope["typed"], load(METRICS).unknown):
        with pytest.raises(TypeError):
            source_digest(wrong)


def test_samples_stand_for_themselves_by_their_digest() -> None:
    """An object with a digest is told by it, and not by what else it holds."""
    samples = Samples((), ({"x": np.zeros(3)},), "a")
    assert digest(samples) == digest(replace(samples, inputs=()))
    assert digest(samples) != digest(replace(samples, digest="b"))
