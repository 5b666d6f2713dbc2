"""What every peer's program is told, and the session it makes. Standard library when imported."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Program:
    """The flags of a peer's program.

    Attributes:
        model: The ONNX file.
        name: As clients call the model, where a protocol names models.
        input: The graph's only input.
        shape: Of the input, without the batch dimension, which comes first.
        dtype: Of the input, as NumPy writes it.
        output: The graph's output to answer with.
        answer_shape: Of the output, without the batch dimension.
        answer_dtype: Of the output.
        port: For HTTP, or for gRPC where the program answers nothing else.
        grpc_port: For gRPC, where it answers both.
        threads: Of the one session.
        scratch: A directory for files of the program.
        road: Which of several ways to the model, where the program has several.
    """

    model: Path
    name: str
    input: str
    shape: tuple[int, ...]
    dtype: str
    output: str
    answer_shape: tuple[int, ...]
    answer_dtype: str
    port: int
    threads: int
    grpc_port: int = 0
    scratch: Path = Path()
    road: str = ""

    def flags(self) -> list[str]:
        """What `parse_program` makes this of."""
        return write_flags(vars(self))


_READ: Mapping[str, Callable[[str], object]] = {
    "model": Path,
    "scratch": Path,
    **dict.fromkeys(("port", "grpc_port", "threads"), int),
    **dict.fromkeys(("shape", "answer_shape"), lambda text: tuple(map(int, text.split("x")))),
}
"""How flags are read that are no text."""


def write_flags(fields: Mapping[str, object]) -> list[str]:
    """Flags for the fields of a `Program`; shapes as 3x224x224, none for an empty shape."""
    words = []
    for name, value in fields.items():
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if text:
            words += [_flag(name), text]
    return words


def parse_program(words: Sequence[str] | None = None) -> Program:
    """The flags of the command line, or those given."""
    parser = argparse.ArgumentParser()
    for name in ("model", "name", "input", "dtype", "output", "answer_dtype", "port", "threads"):
        parser.add_argument(_flag(name), type=_READ.get(name, str), required=True)
    for name, usual in (("shape", ()), ("answer_shape", ()), ("grpc_port", 0), ("road", "")):
        parser.add_argument(_flag(name), type=_READ.get(name, str), default=usual)
    parser.add_argument("--scratch", type=Path, default=Path())
    return Program(**vars(parser.parse_args(words)))


def open_session(program: Program) -> Any:  # noqa: ANN401 - an ONNX Runtime session
    """The model in ONNX Runtime on the CPU; threads as told, everything else as it is by default.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    import onnxruntime  # noqa: PLC0415 - a peer's file is also read where it is not installed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = program.threads
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(program.model), options, providers=providers)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
