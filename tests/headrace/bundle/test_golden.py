"""Golden cases: what is written is read again, and a replay accepts exactly what it may."""

import json
import math
import struct
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bundles import WEIGHT, image_bundle, linear_bundle, linear_case, linear_model, png
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from headrace.bundle import golden
from headrace.bundle.golden import GoldenCase, decode_cases, encode_cases, replay
from headrace.bundle.manifest import Tolerance
from headrace.bundle.open import open_bundle
from headrace.engine.model import load_model
from headrace.errors import BundleError, InternalError, UsageError
from headrace.tensors import Array

EXACT = Tolerance(absolute=0.0, relative=0.0)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
DTYPES = st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]).map(np.dtype)
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))
TENSORS = st.dictionaries(NAMES, ARRAYS, max_size=3)
CASES = st.lists(
    st.builds(
        GoldenCase,
        raw=st.dictionaries(NAMES, st.binary(max_size=50), max_size=2),
        inputs=st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=3),
        outputs=TENSORS,
    ),
    min_size=1,
    max_size=12,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def _safetensors(header: object, body: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


def _tensor(dtype: str, shape: list[int], size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}


def _case(output: Array) -> GoldenCase:
    return GoldenCase(raw={}, inputs={"x": np.zeros(1, np.float32)}, outputs={"y": output})


def _replay(output: Array, answer: Array, tolerance: Tolerance = EXACT) -> None:
    replay([_case(output)], lambda _: {"y": answer}, tolerance)


@given(CASES)
def test_cases_survive_the_file(cases: list[GoldenCase]) -> None:
    """Every case comes back as it was written, in order, and is written to the same bytes."""
    content = encode_cases(cases)
    found = decode_cases(content)
    assert len(found) == len(cases)
    for case, before in zip(found, cases, strict=True):
        assert case.raw == before.raw
        for got, expected in ((case.inputs, before.inputs), (case.outputs, before.outputs)):
            assert got.keys() == expected.keys()
            for name, array in got.items():
                assert array.dtype == expected[name].dtype
                assert array.shape == expected[name].shape  # a scalar has none, and keeps it
                np.testing.assert_array_equal(array, expected[name])
    assert encode_cases(found) == content


def test_order_of_names_does_not_change_the_bytes() -> None:
    """Cases whose tensors were put together in another order give the same file."""
    a, b = np.ones(2, np.float32), np.zeros(3, np.int64)
    forth = GoldenCase(raw={}, inputs={"a": a, "b": b}, outputs={})
    back = GoldenCase(raw={}, inputs={"b": b, "a": a}, outputs={})
    assert encode_cases([forth]) == encode_cases([back])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 1 << 63),
        _safetensors(b"\xff\xfe{"),
        _safetensors(b"[" * 9999),
        _safetensors({}),
        _safetensors({"0/input/x": _tensor("BF16", [1], 2)}, b"\0\0"),
        _safetensors({"0/input/x": _tensor("F8_E4M3", [1], 1)}, b"\0"),
        _safetensors({"0/input/x": _tensor("U8", [1], 2)}, b"\0\0"),
        _safetensors({"0/input/x": _tensor("U8", [1], 1)}, b""),
        _safetensors({"0/input/x": _tensor("U8", [0, 1 << 62, 4], 0)}),
        _safetensors({"0/input/x": _tensor("U8", [1] * 100, 1)}, b"\0"),
        _safetensors({"x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"0/input/": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"0/weights/x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"1/input/x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"00/input/x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"-1/input/x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"\u0660/input/x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({f"{'9' * 5000}/input/x": _tensor("U8", [1], 1)}, b"\0"),
        _safetensors({"0/raw/x": _tensor("F32", [1], 4)}, b"\0" * 4),
        _safetensors({"0/raw/x": _tensor("U8", [1, 1], 1)}, b"\0"),
    ],
    ids=range(22),
)
def test_broken_file_is_told(content: bytes) -> None:
    """Whatever is wrong with the file of golden cases is one error with one short sentence."""
    with pytest.raises(BundleError) as caught:
        decode_cases(content)
    assert caught.value.code == "bundle.golden"
    assert len(caught.value.message) < 500


@given(st.binary(max_size=200))
def test_any_bytes_are_cases_or_an_error_of_ours(content: bytes) -> None:
    """No bytes make the reader of golden cases raise anything but its own error."""
    for candidate in (content, struct.pack("<Q", len(content)) + content):
        with suppress(BundleError):
            decode_cases(candidate)


def test_too_large_cases_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases that no load would read are refused when they are written."""
    monkeypatch.setattr(golden, "MAX_GOLDEN_BYTES", 1000)
    with pytest.raises(UsageError) as caught:
        encode_cases([_case(np.zeros(300, np.float32))])
    assert caught.value.code == "golden.size"


def test_endless_cases_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of golden cases larger than any can be is refused before it is read."""
    monkeypatch.setattr("headrace.bundle.open.MAX_GOLDEN_BYTES", 100)
    with pytest.raises(BundleError, match="larger than") as caught:
        open_bundle(linear_bundle(tmp_path)).golden_cases()
    assert caught.value.code == "bundle.golden"


@given(
    reference=hnp.arrays(np.float32, 4, elements=FINITE),
    answer=hnp.arrays(np.float32, 4, elements=FINITE),
    absolute=st.floats(0, 1e38),
    relative=st.floats(0, 10),
)
def test_tolerance_is_a_sharp_bound(
    reference: npt.NDArray[np.float32],
    answer: npt.NDArray[np.float32],
    absolute: float,
    relative: float,
) -> None:
    """A replay passes exactly if every element is within absolute + relative * |reference|."""
    inside = all(
        abs(float(a) - float(b)) <= absolute + relative * abs(float(b))
        for a, b in zip(answer, reference, strict=True)
    )
    expected = nullcontext() if inside else pytest.raises(BundleError, match="is off by")
    with expected:
        _replay(reference, answer, Tolerance(absolute=absolute, relative=relative))


@given(st.floats(1e-6, 1e6), FINITE)
def test_tolerance_ends_at_its_last_place(absolute: float, value: float) -> None:
    """The largest deviation allowed passes, and the next larger number does not."""
    reference = np.zeros(1)
    tolerance = Tolerance(absolute=absolute, relative=0.0)
    _replay(reference, np.array([absolute]), tolerance)
    with pytest.raises(BundleError):
        _replay(reference, np.array([math.nextafter(absolute, math.inf)]), tolerance)
    _replay(np.array([value]), np.array([value]), EXACT)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (1.0, math.nan),
        (math.nan, math.nan),
        (1.0, math.inf),
        (math.inf, 1.0),
        (math.inf, -math.inf),
        (math.inf, math.nan),
    ],
)
def test_what_is_no_number_is_far_from_everything(reference: float, answer: float) -> None:
    """NaN matches nothing, and an infinity only itself, however generous the tolerance."""
    generous = Tolerance(absolute=1e300, relative=1e300)
    with pytest.raises(BundleError) as caught:
        _replay(np.array([0.0, reference]), np.array([0.0, answer]), generous)
    assert caught.value.code == "bundle.golden-mismatch"


@pytest.mark.parametrize("tolerance", [EXACT, Tolerance(absolute=0.1, relative=0.1)])
def test_infinity_matches_itself(tolerance: Tolerance) -> None:
    """A model that masks with infinities can be replayed."""
    values = np.array([math.inf, -math.inf, 1.0], np.float32)
    _replay(values, values, tolerance)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"z": np.zeros(2, np.float32)},
        {"y": np.zeros(3, np.float32)},
        {"y": np.zeros((2, 1), np.float32)},
        {"y": np.zeros(2, np.float64)},
        {"y": np.array([b"", b""], dtype=object)},
    ],
    ids=["nothing", "other name", "other size", "other rank", "other dtype", "text"],
)
def test_missing_or_misshapen_output_is_a_mismatch(answer: Mapping[str, Array]) -> None:
    """An output that is missing, or of another shape or dtype, is a mismatch and says so."""
    with pytest.raises(BundleError, match=r"should be float32\[2\]") as caught:
        replay([_case(np.zeros(2, np.float32))], lambda _: answer, EXACT)
    assert caught.value.code == "bundle.golden-mismatch"


def test_refusal_of_a_case_is_a_mismatch() -> None:
    """A model that fails on its own golden case is no error of a request."""

    def fail(_: Mapping[str, Array]) -> Mapping[str, Array]:
        raise InternalError("model.failed", "the model failed: no memory")

    with pytest.raises(BundleError, match="golden case 0 fails: the model failed") as caught:
        replay([_case(np.zeros(1))], fail, EXACT)
    assert caught.value.code == "bundle.golden-mismatch"


def test_cases_that_prove_nothing_are_refused() -> None:
    """A replay that compares nothing does not pass."""
    case = GoldenCase(raw={}, inputs={"x": np.zeros(1)}, outputs={})
    with pytest.raises(BundleError, match="nothing to compare"):
        replay([case], lambda _: {}, EXACT)


def test_every_case_runs_before_the_worst_is_named() -> None:
    """The error names the worst case, not the first bad one."""
    cases = [_case(np.array([value])) for value in (1.0, 2.0, 3.0)]
    answers = iter([np.array([1.5]), np.array([9.0]), np.array([3.0])])
    with pytest.raises(BundleError, match="golden case 1: output 'y' is off by 7"):
        replay(cases, lambda _: {"y": next(answers)}, EXACT)


def test_preprocessing_is_replayed_too() -> None:
    """Raw bytes are prepared again, and compared with the prepared tensor of the case."""
    case = GoldenCase(raw={"image": b"i"}, inputs={"x": np.ones(1)}, outputs={"y": np.ones(1)})
    same = replay([case], lambda _: {"y": np.ones(1)}, EXACT, lambda raw: {"x": np.ones(len(raw))})
    assert {deviation.tensor for deviation in same} == {"input 'x'", "output 'y'"}
    with pytest.raises(BundleError, match="input 'x' is off"):
        replay([case], lambda _: {"y": np.ones(1)}, EXACT, lambda _: {"x": np.zeros(1)})


def test_one_wrong_weight_fails_the_replay(tmp_path: Path) -> None:
    """A bundle whose graph holds one other weight than the golden cases saw does not load."""
    weight = WEIGHT.copy()
    weight[1, 2] += 0.001
    bundle = open_bundle(linear_bundle(tmp_path, model=linear_model(weight)))
    with pytest.raises(BundleError) as caught:
        load_model(bundle)
    assert caught.value.code == "bundle.golden-mismatch"


def _golden(**tensors: Array) -> bytes:
    return save({name.replace("__", "/").removeprefix("_"): it for name, it in tensors.items()})


X, Y = linear_case(2).inputs["x"], linear_case(2).outputs["y"]


@pytest.mark.parametrize(
    "content",
    [
        _golden(_0__input__x=X),
        _golden(_0__output__y=Y),
        _golden(_0__input__x=X, _0__output__z=Y),
        _golden(_0__input__x=X, _0__input__more=X, _0__output__y=Y),
        _golden(_0__input__x=X, _0__output__y=Y, _0__raw__image=np.zeros(3, np.uint8)),
        _golden(_0__input__x=X.astype(np.float64), _0__output__y=Y),
        _golden(_0__input__x=X[:, :2].copy(), _0__output__y=Y),
        _golden(_0__input__x=X.astype(np.complex64), _0__output__y=Y),
    ],
    ids=["no output", "no input", "other", "more", "raw", "dtype", "shape", "complex"],
)
def test_cases_that_do_not_fit_the_manifest_are_refused(tmp_path: Path, content: bytes) -> None:
    """Golden cases hold exactly the tensors that the manifest declares."""
    bundle = open_bundle(linear_bundle(tmp_path, golden=content))
    with pytest.raises(BundleError) as caught:
        load_model(bundle)
    assert caught.value.code == "bundle.golden"


@pytest.mark.parametrize("raw", [b"no image", png(8)], ids=["broken", "other"])
def test_raw_bytes_that_prepare_to_something_else_are_a_mismatch(
    tmp_path: Path, raw: bytes
) -> None:
    """A golden image that does not decode, or is another image, is a mismatch of the bundle."""
    (good,) = open_bundle(image_bundle(tmp_path / "good")).golden_cases()
    case = GoldenCase(raw={"image": raw}, inputs=good.inputs, outputs=good.outputs)
    bundle = open_bundle(image_bundle(tmp_path / "bad", golden=encode_cases([case])))
    with pytest.raises(BundleError) as caught:
        load_model(bundle)
    assert caught.value.code == "bundle.golden-mismatch"
