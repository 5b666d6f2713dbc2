"""What the user declares: one `Recipe`, in a Python file of its own."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from headrace.bundle.manifest import Name, Tolerance, Version, check_processing
from headrace.bundle.measurement import Limits
from headrace.postprocess.spec import Postprocessing
from headrace.preprocess.spec import Preprocessing, Value
from headrace.tensors import BATCH, Array, Frozen, TensorSpec

Sample = Mapping[str, str | Value | Array]
"""One request. Where preprocessing is declared, one row of each raw input: an encoded image or
recording, a text, or the value of a column. Else one array an input, each with its batch axis."""

Score = Callable[[Mapping[str, Array], object], float]
"""A metric of one's own: the raw outputs of one sample and its label in, a score out; the higher
the better."""

METRICS = ("top1", "f1", "cosine", "mean_error")
"""`top1`: the share of rows whose largest score is the label's. `f1`: the macro average of the F1
scores of the classes. `cosine`: of each row's outputs with the label's. `mean_error`: the mean
absolute difference from the label, the lower the better."""

SOURCES = (".pt2", ".onnx")
"""What a model may be read from: a program of torch.export, or a graph."""


class Budget(Frozen):
    """What a build may cost in fidelity.

    Attributes:
        parity: How far an fp32 graph may lie from the source model. Reordered float32 sums of a
            deep network differ by about 1e-5 of its outputs' size.
        accuracy_loss: How much of the metric a variant of less precision may lose against the
            fp32 graph: 0.005 is half a point of a share, or a cosine of 0.995. The upper end of
            the loss's 95 % interval must keep to it, so few samples prove little.
        memory_mib: Of one loaded session.
        p99_ms: Of one request of one row, in the session alone.
        search_seconds: How long a search may last for the layers that must stay float.
    """

    parity: Tolerance = Tolerance(absolute=1e-4, relative=1e-3)
    accuracy_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.005
    memory_mib: Annotated[float, Field(gt=0)] | None = None
    p99_ms: Annotated[float, Field(gt=0)] | None = None
    search_seconds: Annotated[float, Field(gt=0)] = 300.0

    @property
    def limits(self) -> Limits:
        """What the measurement is held to."""
        return Limits(
            accuracy_loss=self.accuracy_loss, memory_mib=self.memory_mib, p99_ms=self.p99_ms
        )


class Recipe(Frozen):
    """A model and what is needed to prove it.

    Attributes:
        name: Of the bundle; lower case.
        version: Of the bundle, as 1, 1.2 or 1.2.3.
        description: One sentence for people.
        model: A function that returns the `torch.nn.Module`, or the path of a `.pt2` or `.onnx`
            file, relative to the recipe file.
        inputs: Of the model, in the order of `forward`'s arguments. A name as an axis makes it
            dynamic; the axis called `batch` is the one along which requests are batched, and
            stands first.
        outputs: Their names, in the order in which the model returns them. By default the keys of
            the dictionary it returns, the names in the graph, or `output0`, `output1`, ...
        preprocessing: What turns raw inputs into all inputs of the model.
        postprocessing: What turns the model's outputs into an answer.
        samples: A function that returns typical requests: the model is captured, compared and
            proven on the first few of them.
        calibration: A function that returns the samples that quantization takes its ranges from;
            by default `samples`. None of them may be among the evaluation data.
        evaluation: A function that returns pairs of a sample and its label. Without it, no variant
            of less precision than fp32 is made. The label None stands for what the fp32 graph
            answers, so that agreement with it is measured.
        metric: By which a variant is scored on the evaluation data: one of `METRICS`, or a
            function.
        budget: What the build may cost in fidelity.
        seed: Of torch, NumPy and `random` while the recipe's functions run.
    """

    name: Name
    version: Version
    description: str = ""
    model: Callable[[], object] | Path | str
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, strict=False)]
    outputs: Annotated[tuple[str, ...], Field(strict=False)] = ()
    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing | None = None
    samples: Callable[[], Iterable[Sample]]
    calibration: Callable[[], Iterable[Sample]] | None = None
    evaluation: Callable[[], Iterable[tuple[Sample, object]]] | None = None
    metric: Literal["top1", "f1", "cosine", "mean_error"] | Score = "top1"
    budget: Budget = Budget()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @field_validator("model", mode="after")
    @classmethod
    def _known_source(cls, model: object) -> object:
        if isinstance(model, str | Path) and Path(model).suffix not in SOURCES:
            raise ValueError(f"a model file ends in {' or '.join(SOURCES)}")
        return model

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [*(spec.name for spec in self.inputs), *self.outputs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' names more than one input or output")
        for spec in self.inputs:
            if spec.datatype == "BYTES":
                raise ValueError(f"input '{spec.name}': a model takes no BYTES")
            if BATCH in spec.shape[1:]:
                raise ValueError(f"input '{spec.name}': the axis '{BATCH}' stands first")
        check_processing(self.inputs, (), self.preprocessing, None)
        wanted = self.postprocessing
        for name in () if wanted is None or not self.outputs else wanted.reads:
            if name not in self.outputs:
                raise ValueError(f"postprocessing reads '{name}', which is no output")
        return self

    @property
    def batched(self) -> bool:
        """True if every input has the batch axis first."""
        return all(spec.shape[:1] == (BATCH,) for spec in self.inputs)

    @property
    def dynamic_axes(self) -> frozenset[str]:
        """The names of the axes whose size a request chooses."""
        return frozenset(
            axis for spec in self.inputs for axis in spec.shape if isinstance(axis, str)
        )
