"""What postprocessing a bundle declares. Without any, the model's outputs are the answer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.tensors import Frozen


class Softmax(Frozen):
    """The softmax of one output over its last axis, under a name of its own.

    Attributes:
        output: The model output that is read: FP32, shape (batch, classes).
        result: The name of the answer's tensor: FP32, the same shape.
    """

    kind: Literal["softmax"] = "softmax"
    output: str
    result: str = "probabilities"


class TopK(Frozen):
    """The `k` likeliest classes of a row of logits, best first.

    The answer holds `scores` (FP32, softmax probabilities), `indices` (INT64) and, where labels
    are given, `labels` (BYTES, UTF-8), each of shape (batch, k). Equal scores keep the order of
    their indices.

    Attributes:
        output: The model output that is read: FP32, shape (batch, classes).
        labels: One a class, or none.
    """

    kind: Literal["topk"] = "topk"
    output: str
    k: Annotated[int, Field(ge=1, le=10_000)] = 5
    labels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _labels_are_text(self) -> Self:
        for label in self.labels:
            if any("\ud800" <= letter <= "\udfff" for letter in label):
                raise ValueError(f"label {label!r} holds half a character, which UTF-8 cannot say")
        return self


Postprocessing = Annotated[Softmax | TopK, Field(discriminator="kind")]
