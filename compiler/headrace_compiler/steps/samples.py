"""Draws the recipe's samples, checks them against the declared inputs, and prepares them."""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.errors import RequestError, UsageError
from headrace.preprocess.reference import Prepare, open_reference
from headrace.preprocess.spec import Preprocessing, Value, raw_row
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import BATCH, Array, TensorSpec, check_shape
from headrace_compiler.boundary import Translated, at, first_line, user_line
from headrace_compiler.recipe import Recipe, Sample
from headrace_compiler.seeds import seeded

DRAWN = 32
"""How many samples a build draws at most."""
TOKENIZER = "tokenizer/tokenizer.json"
"""Of a bundle whose preprocessing is of text."""
_TOGETHER = 8
"""Of the first raw samples, where rows of different length are padded."""


@dataclass(frozen=True)
class Samples:
    """The samples of one build, in the order in which the recipe gave them.

    Attributes:
        raw: A row of each raw input by its name, one mapping a sample; empty mappings without
            preprocessing.
        inputs: Prepared tensors by input name, one mapping a sample, in the declared order.
        digest: sha256 over what the recipe gave.
    """

    raw: tuple[Mapping[str, Value], ...]
    inputs: tuple[Mapping[str, Array], ...]
    digest: str


def draw_samples(recipe: Recipe, folder: Path) -> Samples:
    """Draws the first samples of a recipe.

    Args:
        folder: Of the recipe, to name the line at fault.

    Raises:
        UsageError: There are none, or one is not what the recipe declares.
    """
    given = _drawn(recipe, folder)
    if not given:
        raise UsageError(
            "samples.empty", "the recipe's samples are empty", "let samples() return at least one"
        )
    prepare = preparation(recipe, folder)
    pairs = [
        prepare_sample(recipe, prepare, f"sample {number}", sample)
        for number, sample in enumerate(given)
    ]
    raw, inputs = (tuple(part) for part in zip(*pairs, strict=True))
    batch = _together(recipe, prepare, raw)
    return Samples(
        raw=({},) * len(batch) + raw,
        inputs=batch + inputs,
        digest=_digest(list((row or ready).items()) for row, ready in pairs),
    )


def _together(
    recipe: Recipe, prepare: Prepare | None, raw: Sequence[Mapping[str, Value]]
) -> tuple[Mapping[str, Array], ...]:
    """A batch of the first rows, if that pads them: then the model is proven on padding, too."""
    if prepare is None or recipe.dynamic_axes <= {BATCH} or len(raw) < 2:
        return ()
    rows = [raw_row(row) for row in raw[:_TOGETHER]]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return (prepare(joined),)


def preparation(recipe: Recipe, folder: Path) -> Prepare | None:
    """What prepares a recipe's samples: the reference, which every faster form is held to.

    Args:
        folder: Of the recipe; files that the preprocessing names lie relative to it.

    Returns:
        None without preprocessing.

    Raises:
        UsageError: Such a file cannot be read.
        MissingError: An extra is not installed.
    """
    spec = recipe.preprocessing
    return None if spec is None else open_reference(spec, lambda path: _read(folder / path))


def named_files(recipe: Recipe, folder: Path) -> Mapping[str, bytes]:
    """The files that the preprocessing names, by their path in a bundle.

    Raises:
        UsageError: One cannot be read.
    """
    spec = recipe.preprocessing
    if not isinstance(spec, TextPreprocessing):
        return {}
    return {TOKENIZER: _read(folder / spec.tokenizer)}


def packed(spec: Preprocessing | None) -> Preprocessing | None:
    """The preprocessing as a bundle declares it, with its files at their path there."""
    if not isinstance(spec, TextPreprocessing):
        return spec
    return spec.model_copy(update={"tokenizer": TOKENIZER})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            "recipe.file", f"{path}, which the recipe names, cannot be read: {error.strerror}"
        ) from error


def prepare_sample(
    recipe: Recipe, prepare: Prepare | None, called: str, sample: Sample
) -> tuple[Mapping[str, Value], Mapping[str, Array]]:
    """Checks one sample against the declaration, and prepares it.

    Args:
        prepare: What `preparation` gave.
        called: How an error names it.

    Returns:
        Its raw row (an empty mapping without preprocessing), and its prepared tensors.

    Raises:
        UsageError: It is not what the recipe declares.
    """
    spec = recipe.preprocessing
    if spec is None or prepare is None:
        return {}, _arrays(recipe.inputs, called, sample)
    row = sample_row(spec.takes, called, sample)
    try:
        return row, prepare(raw_row(row))
    except RequestError as error:
        raise UsageError("samples.unusable", f"{called} cannot be prepared: {error}") from error


def _drawn(recipe: Recipe, folder: Path) -> list[Sample]:
    def fault(error: BaseException) -> UsageError:
        where = at(user_line(error, folder), folder)
        return UsageError(
            "samples.failed", f"the recipe's samples() fails: {first_line(error)}{where}"
        )

    with Translated(fault), seeded(recipe.seed):
        # Each sample is copied as it comes: a generator may fill one buffer again and again.
        return [_copy(sample) for sample in itertools.islice(recipe.samples(), DRAWN)]


def _copy(sample: Sample) -> Sample:
    if not isinstance(sample, Mapping):
        raise UsageError(
            "samples.kind",
            f"samples() gives a {type(sample).__name__}, not a mapping from input name to value",
        )
    return {
        name: np.array(value, copy=True, order="C") if isinstance(value, np.ndarray) else value
        for name, value in sample.items()
    }


def sample_row(takes: Sequence[TensorSpec], called: str, sample: Sample) -> Mapping[str, Value]:
    """One row of each raw input.

    Raises:
        UsageError: The sample is not what the preprocessing takes.
    """
    names = [spec.name for spec in takes]
    if set(sample) != set(names):
        raise UsageError(
            "samples.names",
            f"{called} holds {_shown(sample)}; the preprocessing takes {', '.join(names)}",
        )
    return {spec.name: _value(spec, called, sample) for spec in takes}


def _value(spec: TensorSpec, called: str, sample: Sample) -> Value:
    value = sample[spec.name]
    if spec.datatype == "BYTES" and isinstance(value, str):
        return value.encode()
    if spec.datatype == "BYTES" and isinstance(value, bytes):
        return value
    number = not isinstance(value, bool)
    if number and spec.datatype == "INT64" and isinstance(value, int | np.integer):
        return int(value)
    if number and spec.datatype == "FP64" and isinstance(value, int | float | np.number):
        return float(value)
    wanted = {"BYTES": "bytes or a text", "INT64": "a whole number", "FP64": "a number"}
    raise UsageError(
        "samples.kind",
        f"{called} must map '{spec.name}' to {wanted[spec.datatype]}, of one row,"
        f" and holds {_shown(sample)}",
    )


def _arrays(specs: Sequence[TensorSpec], called: str, sample: Sample) -> Mapping[str, Array]:
    names = [spec.name for spec in specs]
    if set(sample) != set(names):
        raise UsageError(
            "samples.names",
            f"{called} holds {_shown(sample)}; the model takes {', '.join(names)}",
        )
    bound: dict[str, int] = {}
    return {spec.name: _array(spec, called, sample[spec.name], bound) for spec in specs}


def _array(spec: TensorSpec, called: str, value: object, bound: dict[str, int]) -> Array:
    if not isinstance(value, np.ndarray):
        raise UsageError(
            "samples.kind",
            f"{called}: '{spec.name}' is a {type(value).__name__}, not a NumPy array",
        )
    try:
        check_shape(spec, value, bound)
    except RequestError as error:
        raise UsageError("samples.shape", f"{called}: {error}") from error
    if bound.get(BATCH) == 0:
        raise UsageError("samples.shape", f"{called}: '{spec.name}' has no rows")
    if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
        raise UsageError("samples.not-finite", f"{called}: '{spec.name}' holds NaN or infinity")
    return value


def _shown(sample: Sample) -> str:
    return ", ".join(f"'{name}' ({type(value).__name__})" for name, value in sample.items()) or "{}"


def _digest(samples: Iterable[Sequence[tuple[str, Value | Array]]]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for name, value in sample:
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
            content = value if isinstance(value, bytes) else array.tobytes()
            kind = "bytes" if isinstance(value, bytes) else f"{array.dtype.str}{array.shape}"
            digest.update(f"{name} {kind} {len(content)}\n".encode() + content)
    return digest.hexdigest()
