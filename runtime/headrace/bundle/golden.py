"""Golden cases: inputs with the outputs that the source model gave, replayed at every load.

A case holds the prepared tensors of one request and, where the bundle declares preprocessing, the
raw row they came from, so that a replay proves the preprocessing too. Keys in the safetensors file
are `CASE/raw/INPUT` (uint8: bytes; or one float64 or int64), `CASE/input/NAME` and
`CASE/output/NAME`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from headrace.bundle.manifest import Manifest, Tolerance
from headrace.errors import BundleError, InvalidRequestError, RequestError, UsageError
from headrace.preprocess.spec import Value, raw_row
from headrace.tensors import Array, check_shape

MAX_GOLDEN_BYTES = 1 << 30
"""Of all cases together: they are held in memory while they are replayed."""
_KEY = re.compile(r"(0|[1-9][0-9]{0,5})/(raw|input|output)/(.+)")

PREPROCESSING = Tolerance(absolute=1e-4, relative=1e-5)
"""Prepared tensors are float32 whose operations may be fused in another order."""


@dataclass(frozen=True)
class GoldenCase:
    """One request and its reference answer.

    Attributes:
        raw: One row of each raw input by its name; empty without preprocessing.
        inputs: Prepared tensors by name, each with its batch axis.
        outputs: What the source model gave for them.
    """

    raw: Mapping[str, Value]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Deviation:
    """How far one replayed tensor lay from its reference.

    Attributes:
        error: The largest absolute difference.
        excess: The largest of `|a - b| - (absolute + relative * |b|)`; above zero is a failure.
    """

    case: int
    tensor: str
    error: float
    excess: float


def encode_cases(cases: Sequence[GoldenCase]) -> bytes:
    """The cases as one safetensors file; equal cases give equal bytes.

    Raises:
        UsageError: They are larger than a load would hold in memory.
    """
    tensors: dict[str, Array] = {}
    for number, case in enumerate(cases):
        for name, value in case.raw.items():
            (row,) = raw_row({name: value}).values()
            encoded = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else row
            tensors[f"{number}/raw/{name}"] = encoded
        for name, array in case.inputs.items():
            tensors[f"{number}/input/{name}"] = np.asarray(array, order="C")
        for name, array in case.outputs.items():
            tensors[f"{number}/output/{name}"] = np.asarray(array, order="C")
    size = sum(array.nbytes for array in tensors.values())
    if size > MAX_GOLDEN_BYTES * 0.99:  # the rest is for the file's header
        raise UsageError(
            "golden.size",
            f"the golden cases take {size >> 20} MiB, and may take {MAX_GOLDEN_BYTES >> 20}",
            "give smaller samples, or fewer rows in each",
        )
    return save(dict(sorted(tensors.items())))


def decode_cases(content: bytes) -> tuple[GoldenCase, ...]:
    """The cases of a bundle, in order.

    Raises:
        BundleError: The file is not one that `encode_cases` writes.
    """
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        # Unknown dtypes and shapes that NumPy does not take come as KeyError and ValueError.
        raise BundleError("bundle.golden", f"the golden cases cannot be read: {error}") from error
    parts: dict[int, dict[str, dict[str, Array]]] = {}
    for key, array in tensors.items():
        matched = _KEY.fullmatch(key)
        if matched is None:
            raise BundleError("bundle.golden", f"the golden cases hold an unknown key '{key:.80}'")
        number, role, name = matched.groups()
        if role == "raw" and not _is_value(array):
            raise BundleError("bundle.golden", f"'{key:.80}' in the golden cases is no raw row")
        parts.setdefault(int(number), {"raw": {}, "input": {}, "output": {}})[role][name] = array
    if sorted(parts) != list(range(len(parts))) or not parts:
        raise BundleError("bundle.golden", "the golden cases are not numbered from 0")
    return tuple(
        GoldenCase(
            raw={name: _value(array) for name, array in parts[number]["raw"].items()},
            inputs=parts[number]["input"],
            outputs=parts[number]["output"],
        )
        for number in range(len(parts))
    )


def _is_value(array: Array) -> bool:
    number = array.shape == (1,) and array.dtype in {np.dtype(np.float64), np.dtype(np.int64)}
    return number or (array.ndim == 1 and array.dtype == np.uint8)


def _value(array: Array) -> Value:
    value: Value = array.tobytes() if array.dtype == np.uint8 else array.item()
    return value


def check_cases(cases: Sequence[GoldenCase], manifest: Manifest) -> None:
    """Checks that every case gives each input that the manifest declares, and each output.

    Raises:
        BundleError: One does not, or holds raw rows that no preprocessing takes.
    """
    preprocessing = manifest.preprocessing
    raw = set() if preprocessing is None else {spec.name for spec in preprocessing.takes}
    for number, case in enumerate(cases):
        for found, declared in ((case.inputs, manifest.inputs), (case.outputs, manifest.outputs)):
            names = {spec.name for spec in declared}
            if found.keys() != names or not case.raw.keys() <= raw:
                odd = sorted((found.keys() ^ names) | (case.raw.keys() - raw))
                raise BundleError(
                    "bundle.golden",
                    f"golden case {number} and the manifest do not agree on tensor '{odd[0]:.80}'",
                )
        bound: dict[str, int] = {}
        try:
            for spec in manifest.inputs:
                check_shape(spec, case.inputs[spec.name], bound)
        except (InvalidRequestError, UsageError) as error:
            raise BundleError("bundle.golden", f"golden case {number}: {error}") from error


def replay(
    cases: Sequence[GoldenCase],
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    tolerance: Tolerance,
    prepare: Callable[[Mapping[str, Value]], Mapping[str, Array]] | None = None,
) -> tuple[Deviation, ...]:
    """Runs every case and compares; replays all of them before it judges.

    Args:
        run: The session: prepared tensors in, raw model outputs out.
        tolerance: Of the outputs.
        prepare: The preprocessing: a raw row in, prepared tensors out.

    Returns:
        One deviation a tensor that was compared.

    Raises:
        BundleError: A tensor lay outside its tolerance, is missing, or has another shape; or the
            model or the preprocessing refused a case.
    """
    found: list[Deviation] = []
    for number, case in enumerate(cases):
        try:
            if case.raw and prepare is not None:
                prepared = prepare(case.raw)
                found += _compare(number, "input", case.inputs, prepared, PREPROCESSING)
            found += _compare(number, "output", case.outputs, run(case.inputs), tolerance)
        except RequestError as error:
            raise BundleError(
                "bundle.golden-mismatch", f"golden case {number} fails: {error}", error.hint
            ) from error
    if not found:
        raise BundleError("bundle.golden", "the golden cases hold nothing to compare")
    worst = max(found, key=lambda deviation: deviation.excess)
    if worst.excess > 0:
        raise BundleError(
            "bundle.golden-mismatch",
            f"golden case {worst.case}: {worst.tensor} is off by {worst.error:.3g},"
            f" which is {worst.excess:.3g} more than its tolerance",
            "the model does not compute here what it computed when it was built; do not serve it",
        )
    return tuple(found)


def _compare(
    number: int,
    role: str,
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    tolerance: Tolerance,
) -> list[Deviation]:
    found = []
    for name, reference in expected.items():
        array = got.get(name)
        if array is None or array.shape != reference.shape or array.dtype != reference.dtype:
            shown = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
            raise BundleError(
                "bundle.golden-mismatch",
                f"golden case {number}: {role} '{name}' should be"
                f" {reference.dtype}{list(reference.shape)}, and is {shown}",
            )
        error, excess = _distance(array, reference, tolerance)
        found.append(Deviation(number, f"{role} '{name}'", error, excess))
    return found


def _distance(array: Array, reference: Array, tolerance: Tolerance) -> tuple[float, float]:
    """The error and the excess of a `Deviation`; an infinity is only near the same infinity."""
    wide, wide_reference = array.astype(np.float64), reference.astype(np.float64)
    same = np.isinf(wide_reference) & (wide == wide_reference)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, np.abs(wide - wide_reference))
        limit = tolerance.absolute + tolerance.relative * np.abs(wide_reference)
        excess = np.where(same, -np.inf, difference - limit)
    # NaN compares false with everything, so it is counted as infinitely far away.
    difference[np.isnan(difference)] = np.inf
    excess[np.isnan(excess)] = np.inf
    return float(difference.max(initial=0.0)), float(excess.max(initial=-np.inf))
