"""`headrace.json`: the typed manifest of a bundle's content.

Content is what the model is; what a machine measured of it lies beside it and is not listed here.
Keys and values are fixed by the schema version; unknown keys are errors.
"""

import json
import math
import re
from collections.abc import Container
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from headrace.errors import UsageError
from headrace.postprocess.spec import Postprocessing
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace.preprocess.spec import Preprocessing
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import BATCH, Frozen, TensorSpec

SCHEMA_VERSION = 2
"""What this headrace writes; it reads every version from 1 on."""
MANIFEST = "headrace.json"
PACKAGE_MANIFEST = "manifest.json"
COMPONENT = "model/component.json"
GOLDEN = "golden/cases.safetensors"
SKETCHES = "sketches/"
BUILD_RECORD = "build.json"
MEASURED = "measured/"
REPORT = "report.html"
SUFFIX = ".bundle"
MAX_PATH = 255
"""The longest path in a bundle, in characters."""

OUTSIDE_CONTENT = (MEASURED, BUILD_RECORD, REPORT, "model.sig")
"""Names for what is added to a bundle after it was built; they are no part of its digest."""
KERNELS = "kernels/"
RESERVED = ("sbom.cdx.json",)
"""Content of later schema versions; bundles of today hold none of it."""

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$", max_length=64)]
Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$", max_length=32)]


def is_safe_path(path: str) -> bool:
    """True for a relative path with plain components, none of which can climb out."""
    return len(path) <= MAX_PATH and _PATH.fullmatch(path) is not None


def is_among(path: str, names: tuple[str, ...]) -> bool:
    """True if a path is one of `names` or lies below one."""
    return any(f"{path}/".startswith(f"{name.rstrip('/')}/") for name in names)


class FileEntry(Frozen):
    """What one content file must be."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class Tolerance(Frozen):
    """How far an output may lie from its reference: `|a - b| <= absolute + relative * |b|`."""

    absolute: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    relative: Annotated[float, Field(ge=0, allow_inf_nan=False)]


Precision = Literal["fp32", "bf16", "fp16", "int8", "int4"]
Engine = Literal["onnxruntime", "openvino"]
Arithmetic = Literal["fp32", "bf16", "fp16"]


class Variant(Frozen):
    """One graph, one precision, one engine. Several variants may share a graph.

    Attributes:
        precision: The lowest in which it computes, or holds weights.
        arithmetic: In which the engine is told to compute what the graph declares as float32.
        path: The ONNX file, relative to the bundle.
        tolerance: Of golden replays, taken from the error that the build measured.
    """

    name: Name
    precision: Precision
    engine: Engine
    arithmetic: Arithmetic = "fp32"
    path: str
    tolerance: Tolerance


class Parity(Frozen):
    """What the comparison with the source model measured.

    Attributes:
        reference: What the variant was compared with.
        batch_sizes: The sizes compared.
        max_absolute_error: The largest difference of any element of any output.
    """

    variant: Name
    reference: Literal["eager", "program", "graph"]
    batch_sizes: tuple[int, ...]
    max_absolute_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class KernelEntry(Frozen):
    """Pre- and postprocessing as native code.

    Attributes:
        target: The kind of processor, as `headrace.native` names it; or `sm_` and a compute
            capability, of PTX.
        path: Relative to the bundle.
    """

    target: Annotated[str, Field(pattern=r"^[a-z0-9_\-]+$", max_length=64)]
    path: str


class SketchEntry(Frozen):
    """How the values of a tensor are distributed in the samples: one KLL sketch.

    A sketch that would hold more than it may holds evenly spaced order statistics instead, so
    `count` is the number of values, and not what the sketch says.

    Attributes:
        path: The serialized sketch of float32 values, relative to the bundle.
        kind: `feature`: one place in every row. `values`: all values. `row_mean`: the mean of
            each row.
        feature: The place in a row, counted over all its axes; None for the other kinds.
        count: How many values there were, NaN not among them.
        nan_count: How many NaN there were.
        low: The least finite value, None if there was none.
        high: The greatest finite value, None if there was none.
    """

    path: str
    role: Literal["input", "output"]
    tensor: str
    kind: Literal["feature", "values", "row_mean"]
    feature: Annotated[int, Field(ge=0)] | None = None
    count: Annotated[int, Field(ge=0)]
    nan_count: Annotated[int, Field(ge=0)]
    low: Annotated[float, Field(allow_inf_nan=False)] | None
    high: Annotated[float, Field(allow_inf_nan=False)] | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "feature") != (self.feature is not None):
            raise ValueError(f"a sketch of kind {self.kind} has feature {self.feature}")
        if self.low is None or self.high is None:
            if self.low != self.high:
                raise ValueError("low and high are both there, or neither")
        elif self.low > self.high or not self.count:
            raise ValueError(f"low {self.low} and high {self.high} of {self.count} values")
        return self


class Lineage(Frozen):
    """What made the content; nothing in it depends on when or where the build ran.

    Attributes:
        recipe: sha256 of the recipe file, or over it and the modules beside it that it imports.
        weights: sha256 over the names, dtypes and bytes of the model's parameters and buffers.
        samples: sha256 over the sample data that the build drew.
        calibration: sha256 over the calibration data, where any was drawn.
        evaluation: sha256 over the evaluation data and its labels, where any was drawn.
        tools: Versions of what took part.
        steps: The plan, in order.
    """

    recipe: Digest
    weights: Digest
    samples: Digest
    calibration: Digest | None = None
    evaluation: Digest | None = None
    seed: int
    target: str
    tools: dict[str, str]
    steps: tuple[str, ...]


class BuildRecord(Frozen):
    """`build.json`: what is true of one build, and not of the content that it made.

    Attributes:
        commit: Of the recipe's repository, with `-dirty` where the recipe's folder had changes;
            empty where there is no repository.
        fingerprint: Of the machine (`headrace.hardware`).
        seconds: Of each step.
    """

    commit: str
    fingerprint: str
    seconds: dict[str, float]


class Manifest(Frozen):
    """The content of a bundle.

    Attributes:
        preprocessing: What the runtime does before the model.
        in_graph: What the graphs themselves do: then they take images as the decoder leaves them,
            UINT8 [batch, height, width, 3].
    """

    schema_version: Literal[1, 2]
    name: Name
    version: Version
    description: str = ""
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    preprocessing: Preprocessing | None = None
    in_graph: ImagePreprocessing | None = None
    postprocessing: Postprocessing | None = None
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    parity: tuple[Parity, ...]
    lineage: Lineage
    sketches: tuple[SketchEntry, ...] = ()
    kernels: tuple[KernelEntry, ...] = ()
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for path in (*self.files, *(variant.path for variant in self.variants)):
            if not is_safe_path(path):
                raise ValueError(f"path {path!r} may leave the bundle")
            if is_among(path, (MANIFEST, *RESERVED, *OUTSIDE_CONTENT)):
                raise ValueError(f"path {path!r} is reserved")
        for path in (PACKAGE_MANIFEST, COMPONENT, GOLDEN, *(v.path for v in self.variants)):
            if path not in self.files:
                raise ValueError(f"{path} is not among the files")
        for kind, named in (
            ("inputs", self.inputs),
            ("outputs", self.outputs),
            ("variants", self.variants),
        ):
            if len({each.name for each in named}) < len(named):
                raise ValueError(f"two of the {kind} have one name")
        check_processing(self.inputs, self.outputs, self.preprocessing, self.postprocessing)
        _check_sketches(self)
        _check_kernels(self)
        _check_named(self)
        _check_in_graph(self)
        return self

    def variant(self, name: str) -> Variant:
        """The variant of a name.

        Raises:
            UsageError: There is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UsageError(
            "variant.unknown",
            f"{self.name} {self.version} has no variant '{name:.80}'",
            f"its variants are {', '.join(each.name for each in self.variants)}",
        )

    @property
    def batched(self) -> bool:
        """True if every input and output has the batch axis first."""
        return all(spec.shape[:1] == (BATCH,) for spec in (*self.inputs, *self.outputs))

    def is_raw(self, names: Container[str]) -> bool:
        """Whether a request of these inputs is still to be prepared."""
        spec = self.preprocessing
        return spec is not None and any(taken.name in names for taken in spec.takes)

    @property
    def request_inputs(self) -> tuple[TensorSpec, ...]:
        """What a client may send: the raw inputs, or the ready tensors."""
        if self.preprocessing is None:
            return self.inputs
        return (*self.preprocessing.takes, *self.inputs)

    @property
    def answer_outputs(self) -> tuple[TensorSpec, ...]:
        """What a client gets."""
        if self.postprocessing is None:
            return self.outputs
        return self.postprocessing.answers(self.outputs)

    def to_json(self) -> bytes:
        """The one spelling of this manifest, which its digest is taken over."""
        later: dict[str, Any] = {}
        if self.schema_version == 1:  # its spelling does not have what came after it
            later = {
                "sketches": True,
                "kernels": True,
                "in_graph": True,
                "variants": {"__all__": {"arithmetic"}},
                "lineage": {"calibration", "evaluation"},
                "preprocessing": {
                    "decode": {"upright", "reduced"},
                    "colour": True,
                    "cast": True,
                },
            }
        content = self.model_dump(mode="json", exclude=later)
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def check_processing(
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None,
    postprocessing: Postprocessing | None,
) -> None:
    """Checks that pre- and postprocessing fit the tensors of the model.

    Raises:
        ValueError: They do not; the message says how.
    """
    if preprocessing is not None:
        _check_preprocessing(inputs, preprocessing)
    if postprocessing is not None:
        postprocessing.answers(outputs)


def _check_preprocessing(inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing) -> None:
    given = {spec.name: spec for spec in inputs}
    for made in preprocessing.makes:
        taken = given.pop(made.name, None)
        if taken is None:
            raise ValueError(f"preprocessing fills '{made.name}', which is no input")
        if (taken.datatype, taken.shape) != (made.datatype, made.shape):
            shown = f"{made.datatype} {made.shape}"
            raise ValueError(f"preprocessing makes {shown}, which the input does not take")
    if given:
        raise ValueError(f"preprocessing does not fill the input '{next(iter(given))}'")
    twice = {spec.name for spec in preprocessing.takes} & {spec.name for spec in inputs}
    if twice:
        raise ValueError(f"the raw input '{min(twice)}' needs a name other than the model's own")


def _check_named(manifest: Manifest) -> None:
    spec = manifest.preprocessing
    if isinstance(spec, TextPreprocessing) and spec.tokenizer not in manifest.files:
        raise ValueError(f"the tokenizer {spec.tokenizer!r} is not among the files")


def _check_in_graph(manifest: Manifest) -> None:
    spec = manifest.in_graph
    if spec is None:
        return
    images = TensorSpec(name=spec.input, datatype="UINT8", shape=(BATCH, "height", "width", 3))
    if manifest.schema_version < 2 or manifest.preprocessing or manifest.inputs != (images,):
        raise ValueError("with the preprocessing in the graph, the only input is decoded images")


def _check_kernels(manifest: Manifest) -> None:
    bare = manifest.preprocessing is None and manifest.postprocessing is None
    if manifest.kernels and (manifest.schema_version < 2 or bare):
        raise ValueError("kernels are of schema version 2, and of bundles with processing")
    if len({entry.target for entry in manifest.kernels}) < len(manifest.kernels):
        raise ValueError("two kernels have one target")
    listed = {entry.path for entry in manifest.kernels}
    lying = {path for path in manifest.files if path.startswith(KERNELS)}
    odd = sorted(lying ^ listed)
    if odd:
        raise ValueError(f"{odd[0]!r} is not both a kernel and among the files under {KERNELS}")


def _check_sketches(manifest: Manifest) -> None:
    if manifest.sketches and manifest.schema_version < 2:
        raise ValueError("a bundle of schema version 1 has no sketches")
    listed = [entry.path for entry in manifest.sketches]
    if len(set(listed)) < len(listed):
        raise ValueError("two sketches have one path")
    lying = {path for path in manifest.files if path.startswith(SKETCHES)}
    odd = sorted(lying ^ set(listed))
    if odd:
        raise ValueError(f"{odd[0]!r} is not both a sketch and among the files under {SKETCHES}")
    specs = {("input", spec.name): spec for spec in manifest.inputs}
    specs |= {("output", spec.name): spec for spec in manifest.outputs}
    for entry in manifest.sketches:
        spec = specs.get((entry.role, entry.tensor))
        if spec is None:
            raise ValueError(f"there is a sketch of '{entry.tensor}', which is no {entry.role}")
        if entry.feature is not None and entry.feature >= (row_size(spec) or 0):
            raise ValueError(f"there is no feature {entry.feature} in a row of '{spec.name}'")


def row_size(spec: TensorSpec) -> int | None:
    """How many numbers a row has; None where a request chooses.

    A row is what lies along the batch axis, or the whole tensor where there is none.
    """
    row = spec.shape[1:] if spec.shape[:1] == (BATCH,) else spec.shape
    axes = [axis for axis in row if isinstance(axis, int)]
    return math.prod(axes) if len(axes) == len(row) else None
