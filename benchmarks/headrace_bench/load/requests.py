"""Requests that are built once and sent again and again, and what their answers have to be."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from headrace.bundle.golden import GoldenCase
from headrace.bundle.open import Bundle
from headrace.errors import CheckError, InvalidRequestError, UsageError
from headrace.postprocess.reference import postprocess
from headrace.preprocess.spec import raw_row
from headrace.protocol.binary import decode_binary, encode_binary
from headrace.protocol.grpc import load_messages
from headrace.protocol.http import HEADER_LENGTH
from headrace.protocol.jsondata import encode_data
from headrace.protocol.messages import Tensor
from headrace.tensors import NUMPY_DTYPES, Array, Frozen

Kind = Literal["oip-json", "oip-binary", "oip-grpc", "json-outputs", "raw", "echo"]
OIP_GRPC = "/inference.GRPCInferenceService/ModelInfer"
READY = "/v2/health/ready"
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        headers: Names in lower case; empty by gRPC.
        body: The message, by gRPC.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerCheck(Frozen):
    """What makes an answer right: one tensor in it, within a tolerance.

    Attributes:
        kind: How the tensor stands in the answer. `oip-json`, `oip-binary` and `oip-grpc` are the
            Open Inference Protocol's; `json-outputs` is a JSON object with a nested list under the
            output's name; `raw` is the tensor's bytes, little-endian, alone; `echo` is the
            request's body (or message) come back, and needs neither of the next two.
        output: The tensor's name.
        expected: A `.npy` file.
        absolute: Tolerance.
        relative: Tolerance, of the expected value.
    """

    kind: Kind
    output: str = ""
    expected: str = ""
    absolute: float = _TOLERANCE
    relative: float = _TOLERANCE

    def save(self, path: Path) -> str:
        """Writes the check as JSON and returns the file, as `open_served` takes it."""
        path.write_text(self.model_dump_json())
        return str(path)


def load_check(path: Path) -> AnswerCheck:
    """A check that was saved.

    Raises:
        UsageError: The file holds none.
    """
    try:
        return AnswerCheck.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError("bench.check", f"{path} holds no check of an answer: {error}") from error


def check_answer(check: AnswerCheck, request: bytes, answer: Answer) -> None:
    """Compares an answer with what it has to be.

    Args:
        request: As it was sent: with its head, by HTTP.

    Raises:
        CheckError: It is another (`bench.wrong-answer`).
    """
    if check.kind == "echo":
        sent = request if not answer.headers else request.partition(b"\r\n\r\n")[2]
        if answer.body != sent:
            raise _wrong(f"of {len(sent)} bytes sent, {len(answer.body)} others came back")
        return
    expected = np.load(check.expected, allow_pickle=False)
    try:
        found = _DECODERS[check.kind](answer, check.output, expected)
    except (ValueError, KeyError, TypeError, IndexError, InvalidRequestError) as error:
        shown = f"{type(error).__name__}: {error}"
        raise _wrong(f"it does not hold output '{check.output}' as {check.kind}: {shown}") from None
    if found.shape != expected.shape:
        raise _wrong(f"'{check.output}' is {list(found.shape)}, and not {list(expected.shape)}")
    wide, reference = found.astype(np.float64), expected.astype(np.float64)
    if not np.allclose(wide, reference, atol=check.absolute, rtol=check.relative):
        with np.errstate(invalid="ignore"):
            off = float(np.abs(wide - reference).max(initial=0.0))
        raise _wrong(f"'{check.output}' is off by {off:.3g}")


def http_request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """An HTTP/1.1 POST that keeps its connection; the same bytes for every server."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def oip_http(model: str, inputs: Mapping[str, Array], *, binary: bool) -> bytes:
    """An inference request of the Open Inference Protocol by HTTP.

    Args:
        model: Its name.
        inputs: By name; BYTES as object arrays.
        binary: Tensors as bytes behind the JSON, both ways; else all in the JSON.
    """
    tensors = [Tensor.of(name, array) for name, array in inputs.items()]
    blobs = [bytes(encode_binary(tensor)) for tensor in tensors] if binary else []
    entries: list[dict[str, Any]] = []
    for number, tensor in enumerate(tensors):
        entry: dict[str, Any] = {
            "name": tensor.name,
            "shape": list(tensor.array.shape),
            "datatype": tensor.datatype,
        }
        if binary:
            entry["parameters"] = {"binary_data_size": len(blobs[number])}
        else:
            entry["data"] = encode_data(tensor)
        entries.append(entry)
    request: dict[str, Any] = {"inputs": entries}
    path = f"/v2/models/{model}/infer"
    if not binary:
        return http_request(path, _dump(request), {"Content-Type": "application/json"})
    head = _dump({**request, "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return http_request(path, head + b"".join(blobs), headers)


def oip_grpc(model: str, inputs: Mapping[str, Array]) -> bytes:
    """A `ModelInferRequest` with raw contents, serialized.

    Raises:
        MissingError: The extra `grpc` is not installed.
    """
    message = load_messages().ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        tensor = Tensor.of(name, array)
        message.inputs.add(name=name, datatype=tensor.datatype, shape=array.shape)
        message.raw_input_contents.append(bytes(encode_binary(tensor)))
    return bytes(message.SerializeToString())


@dataclass(frozen=True)
class Exchange:
    """One row of a bundle's first golden case, and what has to come of it.

    Attributes:
        inputs: Ready tensors, or one encoded image as BYTES.
        outputs: What the model itself gives, without postprocessing.
        output: The name of the answer's tensor that is compared.
        expected: That tensor.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    output: str
    expected: Array


def golden_exchange(bundle: Bundle, *, image: bool = False) -> Exchange:
    """The request that a bundle is measured with.

    Args:
        image: Send the encoded image instead of the tensor that is made of it.

    Raises:
        UsageError: The bundle takes no images.
        BundleError: Its golden cases cannot be read.
    """
    manifest = bundle.manifest
    case = bundle.golden_cases()[0]
    if manifest.batched:  # its rows do not know of each other
        inputs = {name: array[:1] for name, array in case.inputs.items()}
        outputs = {name: array[:1] for name, array in case.outputs.items()}
    else:
        inputs, outputs = dict(case.inputs), dict(case.outputs)
    if image:
        inputs = _image_input(bundle, case)
    if manifest.postprocessing is None:
        name = manifest.outputs[0].name
        return Exchange(inputs, outputs, name, outputs[name])
    answer = postprocess(manifest.postprocessing, outputs)
    name = next(iter(answer))
    return Exchange(inputs, outputs, name, answer[name])


def write_request(
    bundle: Bundle,
    stem: Path,
    *,
    road: Literal["http", "grpc"] = "http",
    binary: bool = True,
    image: bool = False,
) -> dict[str, str | int]:
    """Writes a bundle's request and the check of its answer.

    Args:
        stem: Files are written whose names begin with it.
        road: `grpc` is binary always.
        binary: Tensors as bytes.
        image: Send the encoded image.

    Returns:
        The arguments of `open_served` that have to do with the request.

    Raises:
        UsageError: The bundle takes no images.
        MissingError: The extra `grpc` is needed and not installed.
    """
    exchange, model = golden_exchange(bundle, image=image), bundle.manifest.name
    tolerance = bundle.manifest.variants[0].tolerance
    request, answer = (Path(f"{stem}.{end}") for end in ("request", "npy"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    if road == "grpc":
        request.write_bytes(oip_grpc(model, exchange.inputs))
    else:
        request.write_bytes(oip_http(model, exchange.inputs, binary=binary))
    np.save(answer, exchange.expected, allow_pickle=False)
    kinds: dict[str, Kind] = {"grpc": "oip-grpc", "http": "oip-binary" if binary else "oip-json"}
    check = AnswerCheck(
        kind=kinds[road],
        output=exchange.output,
        expected=str(answer),
        absolute=max(_TOLERANCE, tolerance.absolute),
        relative=max(_TOLERANCE, tolerance.relative),
    )
    return {
        "road": road,
        "ready": READY if road == "http" else "",
        "request": str(request),
        "method": OIP_GRPC if road == "grpc" else "",
        "expected": check.save(Path(f"{stem}.check.json")),
        "rows": 1,
    }


def _image_input(bundle: Bundle, case: GoldenCase) -> dict[str, Array]:
    if not case.raw:
        raise UsageError("bench.image", f"bundle {bundle.label} takes no images")
    return raw_row(case.raw)


def _from_oip_json(answer: Answer, output: str, _: Array) -> Array:
    return _listed(json.loads(answer.body), output)


def _from_oip_binary(answer: Answer, output: str, _: Array) -> Array:
    length = int(answer.headers[HEADER_LENGTH])
    offset = length
    for entry in json.loads(answer.body[:length])["outputs"]:
        size = int(entry["parameters"]["binary_data_size"])
        if entry["name"] == output:
            content = answer.body[offset : offset + size]
            return decode_binary(output, entry["datatype"], tuple(entry["shape"]), content)
        offset += size
    raise KeyError(output)


def _from_oip_grpc(answer: Answer, output: str, expected: Array) -> Array:
    message = load_messages().ModelInferResponse.FromString(answer.body)
    for number, entry in enumerate(message.outputs):
        if entry.name != output:
            continue
        if message.raw_output_contents:
            content = message.raw_output_contents[number]
            return decode_binary(output, entry.datatype, tuple(entry.shape), content)
        fields = entry.contents.ListFields()
        return np.array(fields[0][1], expected.dtype).reshape(tuple(entry.shape))
    raise KeyError(output)


def _from_json_outputs(answer: Answer, output: str, _: Array) -> Array:
    return _floats(json.loads(answer.body)[output])


def _from_raw(answer: Answer, _: str, expected: Array) -> Array:
    found = np.frombuffer(answer.body, expected.dtype.newbyteorder("<"))
    return found.reshape(expected.shape)


def _listed(content: Mapping[str, Any], output: str) -> Array:
    for entry in content["outputs"]:
        if entry["name"] == output:
            flat = np.array(entry["data"], NUMPY_DTYPES[entry["datatype"]])
            return flat.reshape(tuple(entry["shape"]))
    raise KeyError(output)


def _floats(nested: object) -> Array:
    array: npt.NDArray[np.float64] = np.asarray(nested, np.float64)
    return array


_DECODERS: Mapping[str, Callable[[Answer, str, Array], Array]] = {
    "oip-json": _from_oip_json,
    "oip-binary": _from_oip_binary,
    "oip-grpc": _from_oip_grpc,
    "json-outputs": _from_json_outputs,
    "raw": _from_raw,
}


def _wrong(how: str) -> CheckError:
    return CheckError("bench.wrong-answer", f"the answer is wrong: {how}")


def _dump(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
