"""Golden cases: inputs with the outputs that the source model gave, replayed at every load.

A case holds the prepared tensors of one request and, where the bundle declares preprocessing, the
raw bytes they came from, so that a replay proves the preprocessing too. Keys in the safetensors
file are `CASE/raw/INPUT` (uint8, encoded bytes), `CASE/input/NAME` and `CASE/output/NAME`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from headrace.bundle.manifest import Tolerance
from headrace.errors import BundleError
from headrace.tensors import Array

PREPROCESSING = Tolerance(absolute=1e-4, relative=1e-5)
"""Prepared tensors are float32 whose operations may be fused in another order."""


@dataclass(frozen=True)
class GoldenCase:
    """One request and its reference answer.

    Attributes:
        raw: Encoded bytes by the name of the raw input; empty without preprocessing. One row each.
        inputs: Prepared tensors by name, each with its batch axis.
        outputs: What the source model gave for them.
    """

    raw: Mapping[str, bytes]
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
    """The cases as one safetensors file; equal cases give equal bytes."""
    tensors: dict[str, Array] = {}
    for number, case in enumerate(cases):
        for name, content in case.raw.items():
            tensors[f"{number}/raw/{name}"] = np.frombuffer(content, np.uint8)
        for name, array in case.inputs.items():
            tensors[f"{number}/input/{name}"] = np.ascontiguousarray(array)
        for name, array in case.outputs.items():
            tensors[f"{number}/output/{name}"] = np.ascontiguousarray(array)
    return save(dict(sorted(tensors.items())))


def decode_cases(content: bytes) -> tuple[GoldenCase, ...]:
    """The cases of a bundle, in order.

    Raises:
        BundleError: The file is not one that `encode_cases` writes.
    """
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise BundleError("bundle.golden", f"the golden cases cannot be read: {error}") from error
    parts: dict[int, dict[str, dict[str, Array]]] = {}
    for key, array in tensors.items():
        number, _, rest = key.partition("/")
        role, _, name = rest.partition("/")
        if not number.isdecimal() or role not in {"raw", "input", "output"} or not name:
            raise BundleError("bundle.golden", f"the golden cases hold an unknown key '{key}'")
        parts.setdefault(int(number), {"raw": {}, "input": {}, "output": {}})[role][name] = array
    if sorted(parts) != list(range(len(parts))) or not parts:
        raise BundleError("bundle.golden", "the golden cases are not numbered from 0")
    return tuple(
        GoldenCase(
            raw={name: array.tobytes() for name, array in parts[number]["raw"].items()},
            inputs=parts[number]["input"],
            outputs=parts[number]["output"],
        )
        for number in range(len(parts))
    )


def replay(
    cases: Sequence[GoldenCase],
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    tolerance: Tolerance,
    prepare: Callable[[Mapping[str, bytes]], Mapping[str, Array]] | None = None,
) -> tuple[Deviation, ...]:
    """Runs every case and compares; replays all of them before it judges.

    Args:
        run: The session: prepared tensors in, raw model outputs out.
        tolerance: Of the outputs.
        prepare: The preprocessing: raw bytes in, prepared tensors out.

    Returns:
        One deviation a tensor that was compared.

    Raises:
        BundleError: A tensor lay outside its tolerance, is missing, or has another shape.
    """
    found: list[Deviation] = []
    for number, case in enumerate(cases):
        if case.raw and prepare is not None:
            prepared = prepare(case.raw)
            found += _compare(number, "input", case.inputs, prepared, PREPROCESSING)
        found += _compare(number, "output", case.outputs, run(case.inputs), tolerance)
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
        wide, wide_reference = array.astype(np.float64), reference.astype(np.float64)
        difference = np.abs(wide - wide_reference)
        limit = tolerance.absolute + tolerance.relative * np.abs(wide_reference)
        # NaN compares false with everything, so it is counted as infinitely far away.
        excess = np.nan_to_num(difference - limit, nan=np.inf)
        found.append(
            Deviation(
                case=number,
                tensor=f"{role} '{name}'",
                error=float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)),
                excess=float(excess.max(initial=-np.inf)),
            )
        )
    return found
