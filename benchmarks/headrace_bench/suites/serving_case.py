"""What a serving contest has every contestant do, whoever serves it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Road = Literal["http", "grpc"]
Layout = Literal["edge", "ray"]
Encoding = Literal["binary", "json"]


@dataclass(frozen=True)
class ServingCase:
    """One model, one request, one kind of road: the same for all contestants of a contest.

    Attributes:
        name: The contest's name, as `edge-http-tiny`.
        road: The protocol that the client speaks.
        layout: `edge` is one process that owns its socket; `ray` is Ray Serve behind HAProxy.
        encoding: How tensors travel where a protocol leaves the choice.
        model_path: The ONNX file that headrace serves too.
        input_name: The graph's only input.
        input_npy: The request's tensor, batch dimension first.
        output_name: The graph's output that is compared.
        expected_npy: What the output has to be, as the bundle's golden case has it.
        model_name: As the client calls the model.
        threads: Of the one session.
    """

    name: str
    road: Road
    layout: Layout
    encoding: Encoding
    model_path: Path
    input_name: str
    input_npy: Path
    output_name: str
    expected_npy: Path
    model_name: str
    threads: int
