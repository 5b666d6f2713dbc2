"""`predict`: one answer, from a bundle on this machine or from a server."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any

import numpy as np
import typer

from headrace.bundle.open import open_bundle
from headrace.choice import choose_variant
from headrace.commands.screen import (
    AllowReference,
    AsJson,
    err,
    milliseconds,
    print_json,
    print_table,
)
from headrace.engine.model import load_model
from headrace.engine.session import CPU, MAX_THREADS
from headrace.errors import HeadraceError, MissingError, UsageError
from headrace.hardware import detect_hardware
from headrace.protocol.http import HEADER_LENGTH, encode_infer
from headrace.protocol.messages import InferRequest, InferResponse, Tensor
from headrace.settings import Settings
from headrace.tensors import Array

_TIMEOUT_S = 60.0


def register(app: typer.Typer) -> None:
    """Adds this command to the program."""
    app.command("predict")(predict)


def predict(
    source: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE-or-URL", help="A bundle, or http://HOST:PORT/v2/models/NAME."
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="NAME=FILE",
            help="An .npy array, or the encoded bytes of one row; repeat for more rows or inputs.",
        ),
    ],
    *,
    provider: str = CPU,
    variant: Annotated[
        str, typer.Option(help="Run this one of a bundle's, not the one measured best.")
    ] = "",
    allow_reference: AllowReference = False,
    threads: Annotated[
        int, typer.Option(min=0, max=MAX_THREADS, help="0 takes the physical cores.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Answer one request, locally or by a server, and show the time of each stage."""
    arrays = read_inputs(inputs)
    if source.startswith(("http://", "https://")):
        outputs, seconds = ask(source, arrays), {}
    else:
        with err().status("loading and proving the bundle"):
            bundle, hardware, home = open_bundle(Path(source)), detect_hardware(), Settings().home
            chosen = choose_variant(
                bundle, hardware, threads=threads, provider=provider, wanted=variant, home=home
            )
            model = load_model(
                bundle,
                variant=chosen.variant,
                provider=provider,
                threads=threads,
                allow_reference=allow_reference,
            )
        if chosen.measured_now:
            err().print(f"{bundle.label}: {chosen.variant.name}, {chosen.reason}", markup=False)
        answer = model.answer(arrays)
        outputs = {name: array.tolist() for name, array in answer.outputs.items()}
        seconds = dict(answer.seconds)
    readable = {name: _readable(value) for name, value in outputs.items()}
    if as_json:
        print_json({"outputs": readable, "seconds": seconds})
        return
    _print_rows(readable)
    if seconds:
        rows = [(stage, milliseconds(value)) for stage, value in seconds.items()]
        print_table("time", ("stage", ""), rows)


def read_inputs(pairs: Sequence[str]) -> dict[str, Array]:
    """The request's arrays from `NAME=FILE` pairs.

    Several files of encoded bytes under one name are several rows; an .npy file is the whole input.

    Raises:
        UsageError: A pair has no `=`, a file cannot be read, or an input is given twice.
    """
    rows: dict[str, list[bytes]] = {}
    arrays: dict[str, Array] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UsageError("predict.input", f"--input takes NAME=FILE, and got '{pair}'")
        if name in arrays or (name in rows and file.endswith(".npy")):
            raise UsageError("predict.input", f"input '{name}' is given twice, once as an array")
        try:
            if file.endswith(".npy"):
                arrays[name] = _load_array(Path(file))
            else:
                rows.setdefault(name, []).append(Path(file).read_bytes())
        except (OSError, ValueError, MemoryError) as error:
            raise UsageError("predict.input", f"cannot read {file}: {error}") from error
    for name, contents in rows.items():
        arrays[name] = np.array(contents, dtype=object)
    return arrays


def _load_array(path: Path) -> Array:
    """One array; unlike `np.load`, this takes no other format, whatever the first bytes are."""
    with path.open("rb") as file:
        try:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
        except (TokenError, SyntaxError) as error:
            raise ValueError(f"its header is broken: {error}") from error
    return array


def ask(url: str, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Asks a server, with binary inputs, for JSON outputs.

    Raises:
        MissingError: No server answers there, or not as one should, or it cannot answer now.
        UsageError: The server refused the request.
    """
    tensors = tuple(Tensor.of(name, array) for name, array in arrays.items())
    headers, chunks = _encode_request(tensors)
    try:
        request = urllib.request.Request(  # noqa: S310 - the caller checked the scheme
            f"{url.rstrip('/')}/infer", data=b"".join(chunks), headers=headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            body = response.read()
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.read(), error.code, url) from error
    except (OSError, HTTPException, ValueError) as error:
        raise MissingError(
            "server.unreachable", f"{url} does not answer: {error}", "is the service running?"
        ) from error
    try:
        return {
            output["name"]: np.array(output["data"], dtype=object).reshape(output["shape"]).tolist()
            for output in json.loads(body)["outputs"]
        }
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise MissingError(
            "server.protocol", f"{url} answered something else than the Open Inference Protocol"
        ) from error


def _encode_request(tensors: tuple[Tensor, ...]) -> tuple[dict[str, str], list[bytes | memoryview]]:
    """A request has the form of an answer, under `inputs` instead of `outputs`."""
    asked = InferRequest(model="", version="", id="", inputs=tensors, binary_by_default=True)
    headers, chunks = encode_infer(InferResponse("", "", "", tensors), asked)
    answer = json.loads(bytes(chunks[0]))
    header = json.dumps({"inputs": answer["outputs"]}).encode()
    return {
        "content-type": headers["content-type"],
        HEADER_LENGTH: str(len(header)),
    }, [header, *chunks[1:]]


def _refusal(body: bytes, status: int, url: str) -> HeadraceError:
    try:
        content = json.loads(body)
        code, message = str(content["code"]), f"{url} answered {status}: {content['error']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return MissingError("server.error", f"{url} answered {status}")
    return UsageError(code, message) if status < 500 else MissingError(code, message)


def _readable(value: Any) -> Any:  # noqa: ANN401 - nested lists of JSON values
    if isinstance(value, list):
        return [_readable(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no number for it
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _is_ranking(outputs: Mapping[str, Any]) -> bool:
    """Whether the outputs are those of `TopK`, and not some model's own of the same names."""
    if not {"scores", "indices"} <= outputs.keys():
        return False
    names = {"scores", "indices", "labels"} & outputs.keys()
    shapes = {np.shape(outputs[name]) for name in names}
    return len(shapes) == 1 and len(shapes.pop()) == 2


def _score(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _print_rows(outputs: Mapping[str, Any]) -> None:
    """One table a row where the answer is a ranking, one line an output otherwise."""
    if _is_ranking(outputs):
        labels = outputs.get("labels")
        for row, scores in enumerate(outputs["scores"]):
            columns = [outputs["indices"][row], [_score(score) for score in scores]]
            if labels:
                columns.append(labels[row])
            heads = ("index", "score", "label")[: len(columns)]
            print_table(f"row {row}", heads, list(zip(*columns, strict=True)))
        return
    for name, value in outputs.items():
        text = json.dumps(value)
        print_table(name, ("",), [(text if len(text) <= 2000 else f"{text[:1997]}...",)])
