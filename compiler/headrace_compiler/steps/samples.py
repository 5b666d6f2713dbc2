"""Draws the recipe's samples, checks them against the declared inputs, and prepares them."""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.errors import RequestError, UsageError
from headrace.preprocess.reference import prepare
from headrace.preprocess.spec import ImagePreprocessing
from headrace.tensors import BATCH, Array, TensorSpec, check_shape
from headrace_compiler.boundary import Translated, at, first_line, user_line
from headrace_compiler.recipe import Recipe, Sample
from headrace_compiler.seeds import seeded

DRAWN = 32
"""How many samples a build draws at most."""


@dataclass(frozen=True)
class Samples:
    """The samples of one build, in the order in which the recipe gave them.

    Attributes:
        raw: Encoded bytes by the raw input's name, one mapping a sample; empty mappings without
            preprocessing.
        inputs: Prepared tensors by input name, one mapping a sample, in the declared order.
        digest: sha256 over what the recipe gave.
    """

    raw: tuple[Mapping[str, bytes], ...]
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
    pairs = [
        prepare_sample(recipe, f"sample {number}", sample) for number, sample in enumerate(given)
    ]
    raw, inputs = (tuple(part) for part in zip(*pairs, strict=True))
    return Samples(
        raw=raw,
        inputs=inputs,
        digest=_digest(list((image or ready).items()) for image, ready in pairs),
    )


def prepare_sample(
    recipe: Recipe, called: str, sample: Sample
) -> tuple[Mapping[str, bytes], Mapping[str, Array]]:
    """Checks one sample against the declaration, and prepares it.

    Args:
        called: How an error names it.

    Returns:
        Its encoded bytes (an empty mapping without preprocessing), and its prepared tensors.

    Raises:
        UsageError: It is not what the recipe declares.
    """
    spec = recipe.preprocessing
    if spec is None:
        return {}, _arrays(recipe.inputs, called, sample)
    image = _encoded(spec, called, sample)
    return image, _prepared(spec, called, image)


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


def _encoded(spec: ImagePreprocessing, called: str, sample: Sample) -> Mapping[str, bytes]:
    content = sample.get(spec.input)
    if set(sample) != {spec.input} or not isinstance(content, bytes) or not content:
        raise UsageError(
            "samples.kind",
            f"{called} must map '{spec.input}' to the bytes of one encoded image,"
            f" and holds {_shown(sample)}",
        )
    return {spec.input: content}


def _prepared(
    spec: ImagePreprocessing, called: str, image: Mapping[str, bytes]
) -> Mapping[str, Array]:
    try:
        return {spec.output: prepare(spec, [image[spec.input]])}
    except RequestError as error:
        raise UsageError("samples.image", f"{called} is no usable image: {error}") from error


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


def _digest(samples: Iterable[Sequence[tuple[str, bytes | Array]]]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for name, value in sample:
            content = value if isinstance(value, bytes) else value.tobytes()
            kind = "bytes" if isinstance(value, bytes) else f"{value.dtype.str}{value.shape}"
            digest.update(f"{name} {kind} {len(content)}\n".encode() + content)
    return digest.hexdigest()
