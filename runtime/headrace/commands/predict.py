"""`predict`: one answer, from a bundle on this machine or from a server."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from headrace.bundle.open import open_bundle
from headrace.commands.screen import AsJson, err, milliseconds, print_json, print_table
from headrace.engine.model import load_model
from headrace.engine.session import CPU
from headrace.errors import HeadraceError, MissingError, UsageError
from headrace.protocol.http import HEADER_LENGTH, encode_infer
from headrace.protocol.messages import InferRequest, InferResponse, Tensor
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
    threads: int = 0,
    as_json: AsJson = False,
) -> None:
    """Answer one request, locally or by a server, and show the time of each stage."""
    arrays = read_inputs(inputs)
    if source.startswith(("http://", "https://")):
        outputs, seconds = ask(source, arrays), {}
    else:
        with err().status("loading and proving the bundle"):
            model = load_model(open_bundle(Path(source)), provider=provider, threads=threads)
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
    """The request's arrays from `NAME=FILE` pairs; several files under one name are several rows.

    Raises:
        UsageError: A pair has no `=`, or a file cannot be read.
    """
    rows: dict[str, list[bytes]] = {}
    arrays: dict[str, Array] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UsageError("predict.input", f"--input takes NAME=FILE, and got '{pair}'")
        try:
            if file.endswith(".npy"):
                arrays[name] = np.load(file, allow_pickle=False)
            else:
                rows.setdefault(name, []).append(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError("predict.input", f"cannot read {file}: {error}") from error
    for name, contents in rows.items():
        arrays[name] = np.array(contents, dtype=object)
    return arrays


def ask(url: str, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Asks a server, with binary inputs, for JSON outputs.

    Raises:
        MissingError: No server answers there.
        UsageError: The server refused the request.
    """
    tensors = tuple(Tensor.of(name, array) for name, array in arrays.items())
    headers, chunks = _encode_request(tensors)
    request = urllib.request.Request(  # noqa: S310 - the caller checked the scheme
        f"{url.rstrip('/')}/infer", data=b"".join(chunks), headers=headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            content = json.loads(response.read())
    except urllib.error.HTTPError as error:
        raise _refusal(error.read(), error.code, url) from error
    except (OSError, ValueError) as error:
        raise MissingError(
            "server.unreachable", f"{url} does not answer: {error}", "is the service running?"
        ) from error
    return {
        output["name"]: np.array(output["data"], dtype=object).reshape(output["shape"]).tolist()
        for output in content["outputs"]
    }


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
        return UsageError(str(content["code"]), f"{url} answered {status}: {content['error']}")
    except (ValueError, KeyError, TypeError):
        return MissingError("server.error", f"{url} answered {status}")


def _readable(value: Any) -> Any:  # noqa: ANN401 - nested lists of JSON values
    if isinstance(value, list):
        return [_readable(part) for part in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _print_rows(outputs: Mapping[str, Any]) -> None:
    """One table a row where the answer is a ranking, one line an output otherwise."""
    if {"scores", "indices"} <= outputs.keys():
        labels = outputs.get("labels")
        for row, scores in enumerate(outputs["scores"]):
            columns = [outputs["indices"][row], [f"{score:.4f}" for score in scores]]
            if labels:
                columns.append(labels[row])
            heads = ("index", "score", "label")[: len(columns)]
            print_table(f"row {row}", heads, list(zip(*columns, strict=True)))
        return
    for name, value in outputs.items():
        text = json.dumps(value)
        print_table(name, ("",), [(text if len(text) <= 2000 else f"{text[:1997]}...",)])
