"""The native kernels of postprocessing: what the reference answers, within their memory."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from guarded import guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import headrace.postprocess.native
from headrace.errors import BundleError, InternalError
from headrace.hardware import detect_hardware
from headrace.native import TARGETS, NativeFunction
from headrace.postprocess.native import NativePostprocess, postprocess_function
from headrace.postprocess.reference import postprocess
from headrace.postprocess.spec import (
    Detections,
    L2Normalize,
    Postprocessing,
    SigmoidThreshold,
    Softmax,
    TopK,
)
from headrace.preprocess.table.native import TABLE
from headrace.preprocess.table.spec import Number, TablePreprocessing
from headrace.tensors import Array
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.powers import power_of, root_of
from headrace_compiler.kernels.sources import Specs

Floats = npt.NDArray[np.float32]
Kernels = Mapping[tuple[str, str], NativePostprocess]
Outcome = dict[str, Array] | tuple[str, str]
HERE = detect_hardware()
LARGEST = float(np.finfo(np.float32).max)
TINY = 3e-45
"""Two steps of the least float32: what is smaller than normal numbers has few digits."""
ROWS = TablePreprocessing(columns=(Number(name="n"),), output="x")
SPECS: Mapping[str, Postprocessing] = {
    "softmax": Softmax(output="y"),
    "top1": TopK(output="y", k=1),
    "top70": TopK(output="y", k=70),
    "sigmoid": SigmoidThreshold(output="y", threshold=0.3),
    "l2": L2Normalize(output="y"),
    "corners": Detections(boxes="b", scores="s", most=5, candidates=16),
    "centres": Detections(
        boxes="b",
        scores="s",
        format="cxcywh",
        activation="sigmoid",
        score_threshold=0.1,
        iou_threshold=0.25,
        most=40,
        candidates=300,
        labels=("a", "b", "c"),
    ),
}
BY_ROWS = [name for name, spec in SPECS.items() if not isinstance(spec, Detections)]
DETECTIONS = [name for name in SPECS if name not in BY_ROWS]


@pytest.fixture(scope="module")
def libraries() -> Mapping[str, Mapping[str, bytes]]:
    """The libraries of each spec, by target; that of "l2" prepares rows too."""

    def library(name: str) -> Mapping[str, bytes]:
        rows = ROWS if name == "l2" else None
        return compile_kernels(Specs(preprocessing=rows, postprocessing=SPECS[name]))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SPECS, pool.map(library, SPECS), strict=True))


@pytest.fixture(scope="module")
def kernels(libraries: Mapping[str, Mapping[str, bytes]]) -> Kernels:
    """Every library that runs here, by spec and target."""
    return {
        (name, target.name): NativePostprocess(libraries[name][target.name], spec)
        for name, spec in SPECS.items()
        for target in TARGETS
        if target.fits(HERE)
    }


def outcome(finish: Callable[[], dict[str, Array]]) -> Outcome:
    """The answer, or the error's code and sentence."""
    try:
        return finish()
    except InternalError as error:
        return error.code, error.message


def check(kernels: Kernels, name: str, outputs: Mapping[str, Array]) -> Outcome:
    """Checks that every kernel of a spec answers as the reference; returns what that answers."""
    wanted = outcome(lambda: postprocess(SPECS[name], outputs))
    for (made, _), kernel in kernels.items():
        if made == name:
            found = outcome(lambda: kernel(outputs))  # noqa: B023 - called in this very line
            if isinstance(wanted, tuple) or isinstance(found, tuple):
                assert found == wanted
                continue
            assert list(found) == list(wanted)
            for key, array in wanted.items():
                assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
                if array.dtype == np.float32:
                    numbers, right = found[key].astype(np.float64), array.astype(np.float64)
                    np.testing.assert_allclose(numbers, right, rtol=1e-6, atol=TINY)
                else:
                    np.testing.assert_array_equal(found[key], array)
    return wanted


usual = st.floats(-LARGEST, LARGEST, width=32)
ties = st.sampled_from([0.0, -0.0, 1.0, -np.inf, LARGEST, -LARGEST, 80.0, -80.0])
odd = st.sampled_from([1.0, 2.0, np.nan, np.inf, -np.inf, -np.nan])


@st.composite
def matrices(draw: st.DrawFn, least: int = 1) -> Floats:
    """Rows of equal numbers, of usual ones, of many ties, and of what is no number."""
    shape = draw(st.tuples(st.integers(0, 3), st.integers(least, least + 150)))
    elements = draw(st.sampled_from([usual, ties, st.floats(-30, 30, width=32), odd]))
    return draw(arrays(np.float32, shape, elements=elements))


@settings(max_examples=150, deadline=None)
@given(matrices(), st.data())
def test_kernels_of_rows_answer_what_the_reference_does(
    kernels: Kernels, matrix: Floats, data: st.DataObject
) -> None:
    """To 1e-6, on every processor level, errors included."""
    for name in BY_ROWS:
        least = 70 if name == "top70" else 1
        check(kernels, name, {"y": data.draw(matrices(least)) if least > 1 else matrix})


@pytest.mark.parametrize("classes", [1, 15, 16, 17, 63, 64, 65, 70, 1000, 100_000])
@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal"])
def test_any_number_of_classes_is_finished(kernels: Kernels, classes: int, order: str) -> None:
    """In blocks of every size, and in the orders that are worst for keeping the best."""
    row = np.random.default_rng(classes).normal(0, 5, classes).astype(np.float32)
    if order == "rising":
        row.sort()
    elif order == "falling":
        row = -np.sort(-row)
    elif order == "equal":
        row[:] = row[0]
    for name in BY_ROWS:
        wanted = check(kernels, name, {"y": np.stack([row, -row])})
        assert isinstance(wanted, tuple) == (name == "top70" and classes < 70)


grid = st.integers(-2, 5).map(float)
sides = st.one_of(st.integers(-1, 4).map(float), st.floats(-4, 4, width=32, allow_subnormal=False))
levels = st.sampled_from([-np.inf, -3.0, -1.0, -0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 40.0, -LARGEST])


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.integers(0, 2), st.integers(0, 60)), st.data())
def test_kernels_of_detections_answer_what_the_reference_does(
    kernels: Kernels, size: tuple[int, int], data: st.DataObject
) -> None:
    """Ties, boxes without a size, huge ones, no detection, more candidates than are looked at."""
    coordinates = data.draw(st.sampled_from([grid, sides, st.sampled_from([3e38, -3e38, 0.0])]))
    boxes = data.draw(arrays(np.float32, (*size, 4), elements=coordinates))
    scores = data.draw(arrays(np.float32, (*size, 3), elements=levels))
    for name in DETECTIONS:
        check(kernels, name, {"b": boxes, "s": scores})


@pytest.mark.parametrize("seed", range(8))
def test_crowds_of_boxes_are_thinned_out(kernels: Kernels, seed: int) -> None:
    """Thousands of boxes round a few things, as detectors give them."""
    random = np.random.default_rng(seed)
    things = random.uniform((0, 0, 20, 20), (600, 600, 200, 200), (2, 12, 1, 4))
    boxes = (things * random.uniform(0.9, 1.1, (2, 12, 150, 4))).reshape(2, -1, 4)
    scores = random.normal(0, 2, (2, 1800, 3)).astype(np.float32)
    for name in DETECTIONS:
        wanted = check(kernels, name, {"b": boxes.astype(np.float32), "s": scores})
        assert isinstance(wanted, dict)
        assert min(wanted["count"].tolist()) > 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.sampled_from("bs")), max_size=3),
    st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_the_same_row_is_refused(
    kernels: Kernels, places: list[tuple[int, int, str]], value: float
) -> None:
    """Of several faults the first row's is told, and of a row that of its boxes."""
    outputs = {"b": np.ones((3, 7, 4), np.float32), "s": np.ones((3, 7, 3), np.float32)}
    for row, box, name in places:
        outputs[name][row, box, box % 3] = value
    for name in DETECTIONS:
        check(kernels, name, outputs)


def test_outputs_of_any_strides_are_finished(kernels: Kernels) -> None:
    """Turned, mirrored and cut out of larger ones."""
    large = np.random.default_rng(0).normal(0, 3, (200, 210)).astype(np.float32)
    for view in (large.T, large[::-1], large[:, ::-1], large[5:80:3, 7:200:2]):
        for name in BY_ROWS:
            assert isinstance(check(kernels, name, {"y": view}), dict)
    cube = np.abs(large).reshape(2, 100, 210)
    for name in DETECTIONS:
        outputs = {"b": cube[:, ::-1, 8:0:-2], "s": cube.transpose(0, 2, 1)[:, :100, 40:43]}
        assert isinstance(check(kernels, name, outputs), dict)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"y": np.zeros((1, 3), np.float64), "b": np.zeros((1, 3, 4)), "s": np.zeros((1, 3, 3))},
        {"y": np.zeros(3, np.float32), "b": np.zeros((3, 4), np.float32)},
        {"y": np.zeros((2, 0), np.float32)},
        {"b": np.zeros((1, 3, 4), np.float32), "s": np.zeros((1, 2, 3), np.float32)},
        {"b": np.zeros((2, 3, 4), np.float32), "s": np.zeros((1, 3, 3), np.float32)},
        {"b": np.zeros((1, 3, 3), np.float32), "s": np.zeros((1, 3, 3), np.float32)},
    ],
)
def test_other_outputs_never_reach_the_kernel(
    kernels: Kernels, outputs: Mapping[str, Array]
) -> None:
    """Sizes and types are checked before a pointer is handed over, as in the reference."""
    for name in SPECS:
        refused = check(kernels, name, outputs)
        assert isinstance(refused, tuple)
        assert refused[0] == "model.output"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 150), st.integers(0, 99), st.booleans())
def test_kernels_stay_inside_their_memory(
    kernels: Kernels,
    rows: int,
    size: int,
    seed: int,
    at_end: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Outputs, answers and scratch lie between pages that end the process when touched."""
    random = np.random.default_rng(seed)

    def inside(shape: tuple[int, ...]) -> Array:
        made = guarded(shape, np.float32, at_end=at_end)
        made[...] = random.normal(1, 3, shape)
        return made

    def room(shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        return guarded(shape, dtype, at_end=at_end)

    short, long = inside((rows, size)), inside((rows, size + 69))
    outputs = {"b": inside((rows, size, 4)), "s": inside((rows, size, 3))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headrace.postprocess.native, "_room", room)
        for name in BY_ROWS:
            assert isinstance(check(kernels, name, {"y": long if name == "top70" else short}), dict)
        for name in DETECTIONS:
            assert isinstance(check(kernels, name, outputs), dict)
        short[0, size // 2] = np.nan  # what was begun is left
        for name in BY_ROWS:
            check(kernels, name, {"y": short})


def test_exponentials_and_roots_are_numpys() -> None:
    """To 1e-11 and 1e-15, as the same functions in Python."""
    power, root = power_of(lambda function: function), root_of(lambda function: function)
    exponents = np.concatenate([np.linspace(-700, 700, 5001), np.linspace(-1, 1, 501)])
    found = [power(np.float64(each)) for each in exponents]
    np.testing.assert_allclose(found, np.exp(exponents), rtol=1e-11)
    assert power(np.float64(-np.inf)) == power(np.float64(-700)) < 1e-303
    numbers = np.concatenate([[0.0], np.logspace(-90, 80, 2001), np.linspace(1, 4, 1001)])
    roots = [root(np.float64(each)) for each in numbers]
    np.testing.assert_allclose(roots, np.sqrt(numbers), rtol=1e-15)


def test_a_library_needs_nothing_and_shows_its_functions(
    libraries: Mapping[str, Mapping[str, bytes]],
) -> None:
    """A few kilobytes each; preparing and finishing stand in one library."""
    for name, by_target in libraries.items():
        assert by_target.keys() == {target.name for target in TARGETS}
        for target in TARGETS:
            library = by_target[target.name]
            assert b"headrace_postprocess" in library
            assert len(library) < 40_000
            if target.fits(HERE):
                NativeFunction(library, postprocess_function(SPECS[name]))
                if name == "l2":
                    NativeFunction(library, TABLE)


def test_what_is_no_library_is_not_mapped() -> None:
    """A file that is no shared library is the bundle's fault."""
    for spec in SPECS.values():
        with pytest.raises(BundleError) as caught:
            NativePostprocess(b"no library" * 99, spec)
        assert caught.value.code == "bundle.kernel"
