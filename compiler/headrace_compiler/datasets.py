"""Calibration and evaluation data: drawn once, prepared, kept on disk, and told apart.

Samples go to a file as they come, so that memory does not grow with their number.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.errors import CheckError, UsageError
from headrace.preprocess.spec import Value
from headrace.tensors import Array
from headrace_compiler.boundary import Translated, at, first_line, user_line
from headrace_compiler.recipe import Recipe, Sample
from headrace_compiler.seeds import seeded
from headrace_compiler.steps.samples import preparation, prepare_sample

Label = int | float | str | Array | None

MAX_CALIBRATION = 300
"""Samples drawn for calibration at most: ranges hardly change after the first hundreds."""


@dataclass(frozen=True)
class Dataset:
    """Prepared samples in a file, in order.

    Attributes:
        path: Arrays in NumPy's format, one after the other.
        names: Of a sample's arrays, in order.
        labels: One a sample.
        marks: sha256 of every row, as it was given.
        digest: Over prepared samples and labels.
    """

    path: Path
    names: tuple[str, ...]
    labels: tuple[Label, ...]
    marks: frozenset[str]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        with self.path.open("rb") as file:
            for _ in self.labels:
                yield {name: read_array(file) for name in self.names}


@dataclass(frozen=True)
class Data:
    """What quantization learns from, and what it is judged on."""

    calibration: Dataset
    evaluation: Dataset


def draw_data(recipe: Recipe, folder: Path, into: Path) -> Data | None:
    """The recipe's calibration and evaluation data, or None where it has nothing to judge by.

    Raises:
        UsageError: One is empty, or not what the recipe declares.
        CheckError: They share a row.
    """
    evaluation = draw_evaluation(recipe, folder, into)
    if evaluation is None:
        return None
    calibration = draw_calibration(recipe, folder, into)
    check_disjoint(calibration, evaluation)
    return Data(calibration, evaluation)


def draw_calibration(recipe: Recipe, folder: Path, into: Path) -> Dataset:
    """The samples that quantization takes its ranges from.

    Raises:
        UsageError: There are none, or one is not what the recipe declares.
    """
    give = recipe.calibration or recipe.samples
    return _draw(
        recipe,
        folder,
        into / "calibration",
        lambda: ((sample, None) for sample in give()),
        most=MAX_CALIBRATION,
    )


def draw_evaluation(recipe: Recipe, folder: Path, into: Path) -> Dataset | None:
    """The evaluation data with its labels, or None where the recipe has none.

    Raises:
        UsageError: It is empty, or a sample or a label is not what it should be.
    """
    if recipe.evaluation is None:
        return None
    return _draw(recipe, folder, into / "evaluation", recipe.evaluation, most=None)


def check_disjoint(calibration: Dataset, evaluation: Dataset) -> None:
    """Checks that no row is in both: what was calibrated on proves nothing.

    Raises:
        CheckError: One is.
    """
    shared = calibration.marks & evaluation.marks
    if shared:
        raise CheckError(
            "data.overlap",
            f"{len(shared)} of {len(evaluation.marks)} evaluation rows are calibration data too",
            "give the recipe a `calibration` of its own, from data that `evaluation` does not use",
        )


def write_array(file: BinaryIO, array: Array) -> None:
    """Appends an array."""
    np.lib.format.write_array(file, array, allow_pickle=False)


def read_array(file: BinaryIO) -> Array:
    """The next array."""
    array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _draw(
    recipe: Recipe,
    folder: Path,
    path: Path,
    give: Callable[[], Iterable[tuple[Sample, object]]],
    *,
    most: int | None,
) -> Dataset:
    what = path.name
    digest = hashlib.sha256()
    marks: set[str] = set()
    labels: list[Label] = []
    names: tuple[str, ...] = tuple(spec.name for spec in recipe.inputs)
    prepare = preparation(recipe, folder)
    with path.open("wb") as file:
        for number, pair in enumerate(_pairs(recipe, folder, give, what)):
            if number == most:
                break
            sample, label = _split(pair, what, number)
            raw, inputs = prepare_sample(recipe, prepare, f"{what} sample {number}", sample)
            for name in names:
                write_array(file, np.asarray(inputs[name], order="C"))
            marks.update(_marks(raw or inputs, batched=recipe.batched))
            labels.append(_label(label, what, number))
            # Of prepared rows: another preprocessing makes other data of the same images.
            ready = " ".join(_marks(inputs, batched=False))
            digest.update(f"{ready} {_spelled(labels[-1])}\n".encode())
    if not labels:
        raise UsageError(
            "data.empty", f"the recipe's {what} data is empty", f"let {what}() give some samples"
        )
    return Dataset(path, names, tuple(labels), frozenset(marks), digest.hexdigest())


def _pairs(
    recipe: Recipe, folder: Path, give: Callable[[], Iterable[object]], what: str
) -> Iterator[object]:
    def fault(error: BaseException) -> UsageError:
        where = at(user_line(error, folder), folder)
        return UsageError(
            "data.failed", f"the recipe's {what} data fails: {first_line(error)}{where}"
        )

    with Translated(fault), seeded(recipe.seed):
        yield from give()


def _split(pair: object, what: str, number: int) -> tuple[Sample, object]:
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], Mapping):
        raise UsageError(
            "data.kind", f"{what} sample {number} is no pair of a sample and its label"
        )
    return pair


def _marks(values: Mapping[str, Value | Array], *, batched: bool) -> Iterator[str]:
    """sha256 of each row; of the whole where rows cannot be told apart."""
    arrays = [value for value in values.values() if isinstance(value, np.ndarray)]
    apart = batched and len(arrays) == len(values)
    for row in range(len(arrays[0]) if apart else 1):
        digest = hashlib.sha256()
        for name, value in values.items():
            part = value[row] if apart and isinstance(value, np.ndarray) else value
            if isinstance(part, bytes):
                digest.update(f"{name} {len(part)}\n".encode() + part)
            else:
                array = np.asarray(part)
                digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        yield digest.hexdigest()


def _label(label: object, what: str, number: int) -> Label:
    if label is None or isinstance(label, int | float | str):
        return label
    if isinstance(label, np.ndarray | np.generic | list | tuple):
        array = np.array(label)
        if array.dtype != object and array.dtype.kind in "biuf":
            return array
    raise UsageError(
        "data.label",
        f"the label of {what} sample {number} is a {type(label).__name__},"
        " not a number, a text, an array of numbers or None",
    )


def _spelled(label: Label) -> str:
    if not isinstance(label, np.ndarray):
        return repr(label)
    content = io.BytesIO()
    write_array(content, label)
    return hashlib.sha256(content.getvalue()).hexdigest()
