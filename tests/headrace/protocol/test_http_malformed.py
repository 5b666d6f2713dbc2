"""Malformed HTTP requests: each fault has its code, and a sentence that names the tensor."""

import json

import pytest

from headrace.errors import (
    HeadraceError,
    InvalidRequestError,
    RequestError,
    TooLargeError,
    UnsupportedError,
)
from headrace.protocol import http
from headrace.protocol.limits import Limits

LIMITS = Limits(
    max_body_bytes=20_000,
    max_json_bytes=15_000,
    max_json_depth=12,
    max_elements=100,
    max_bytes_elements=10,
    max_entries=5,
    max_rank=4,
)


def fault(body: bytes, length: int | None = None) -> HeadraceError:
    """The error that decoding the body raises."""
    with pytest.raises(RequestError) as raised:
        http.decode_infer(body, model="m", version="", header_length=length, limits=LIMITS)
    return raised.value


def tensor(data: str, shape: str = "[2]", datatype: str = "INT32", name: str = '"x"') -> bytes:
    """A request with one JSON input, spelled literally."""
    return (
        f'{{"inputs":[{{"name":{name},"shape":{shape},"datatype":"{datatype}","data":{data}}}]}}'
    ).encode()


def binary(size: object, shape: str = "[2]", datatype: str = "INT32", extra: str = "") -> bytes:
    """The JSON of a request with one binary input."""
    return (
        f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}"{extra},'
        f'"parameters":{{"binary_data_size":{json.dumps(size)}}}}}]}}'
    ).encode()


VALID = tensor("[1,2]")
ENVELOPES = {
    "empty": (b"", "request.json"),
    "not-json": (b'{"inputs":', "request.json"),
    "trailing": (VALID + b"x", "request.json"),
    "byte-order-mark": (b"\xef\xbb\xbf" + VALID, "request.json"),
    "utf-16": (VALID.decode().encode("utf-16"), "request.encoding"),
    "not-utf-8": (b'{"id":"\xff"}', "request.encoding"),
    "control-character": (b'{"id":"\n"}', "request.json"),
    "array": (b"[]", "request.field"),
    "null": (b"null", "request.field"),
    "nan": (tensor("[NaN,1]", datatype="FP32"), "request.json-constant"),
    "infinity": (tensor("[Infinity,1]", datatype="FP32"), "request.json-constant"),
    "minus-infinity": (tensor("[-Infinity,1]", datatype="FP32"), "request.json-constant"),
    "duplicate-key": (b'{"id":"a","id":"b"}', "request.json-duplicate"),
    "long-integer": (tensor(f"[{'9' * 5000},1]"), "request.json"),
    "no-inputs": (b"{}", "request.field"),
    "empty-inputs": (b'{"inputs":[]}', "request.field"),
    "inputs-object": (b'{"inputs":{}}', "request.field"),
    "input-number": (b'{"inputs":[1]}', "request.field"),
    "id-number": (b'{"id":1}', "request.id"),
    "id-long": (b'{"id":"' + b"x" * 2000 + b'"}', "request.id"),
    "id-surrogate": (b'{"id":"\\ud800"}', "request.text"),
    "parameters-array": (b'{"parameters":[]}', "request.field"),
    "parameter-object": (VALID[:-1] + b',"parameters":{"p":{}}}', "request.parameter"),
    "parameter-infinite": (VALID[:-1] + b',"parameters":{"p":1e999}}', "request.parameter"),
    "parameter-wide": (
        VALID[:-1] + b',"parameters":{"p":18446744073709551616}}',
        "request.parameter",
    ),
    "parameter-surrogate": (VALID[:-1] + b',"parameters":{"p":"\\udc00"}}', "request.text"),
    "parameter-name": (VALID[:-1] + b',"parameters":{"\\udc00":1}}', "request.text"),
    "binary-default": (b'{"parameters":{"binary_data_output":1}}', "request.parameter"),
    "outputs-object": (VALID[:-1] + b',"outputs":{}}', "request.field"),
    "output-nameless": (VALID[:-1] + b',"outputs":[{}]}', "request.name"),
    "output-flag": (
        VALID[:-1] + b',"outputs":[{"name":"y","parameters":{"binary_data":1}}]}',
        "request.parameter",
    ),
    "output-twice": (
        VALID[:-1] + b',"outputs":[{"name":"y"},{"name":"y"}]}',
        "request.duplicate-output",
    ),
}  # fmt: skip
TENSORS = {
    "name-missing": (tensor("[1,2]", name="null"), "request.name"),
    "name-empty": (tensor("[1,2]", name='""'), "request.name"),
    "name-long": (tensor("[1,2]", name=f'"{"x" * 129}"'), "request.name"),
    "name-control": (tensor("[1,2]", name='"a\\n"'), "request.name"),
    "name-surrogate": (tensor("[1,2]", name='"\\ud800"'), "request.name"),
    "shape-missing": (tensor("[1,2]", shape="null"), "request.field"),
    "shape-number": (tensor("[1,2]", shape="2"), "request.field"),
    "shape-negative": (tensor("[1,2]", shape="[-2]"), "request.shape"),
    "shape-fraction": (tensor("[1,2]", shape="[2.0]"), "request.shape"),
    "shape-boolean": (tensor("[1]", shape="[true]"), "request.shape"),
    "shape-text": (tensor("[1,2]", shape='["2"]'), "request.shape"),
    "datatype-unknown": (tensor("[1,2]", datatype="BF16"), "request.datatype"),
    "datatype-case": (tensor("[1,2]", datatype="int32"), "request.datatype"),
    "data-missing": (tensor("null"), "request.data"),
    "data-number": (tensor("1"), "request.field"),
    "data-text": (tensor('"12"'), "request.field"),
    "count-short": (tensor("[1]"), "request.count"),
    "count-long": (tensor("[1,2,3]"), "request.count"),
    "count-empty": (tensor("[]"), "request.count"),
    "nesting-ragged": (tensor("[[1,2],[3]]", "[2,2]"), "request.nesting"),
    "nesting-swapped": (tensor("[[1,2,3],[4,5,6]]", "[3,2]"), "request.nesting"),
    "nesting-mixed": (tensor("[[1,2],3]", "[2,2]"), "request.nesting"),
    "nesting-shallow": (tensor("[[1,2],[3,4]]", "[2,2,1]"), "request.nesting"),
    "nesting-rank-1": (tensor("[[1],[2]]"), "request.element"),
    "nesting-deep": (tensor("[[[1],[2]],[[3],[4]]]", "[2,2]"), "request.element"),
    "nesting-late": (tensor("[1,[2],3,4]", "[2,2]"), "request.element"),
    "integer-fraction": (tensor("[1,2.5]"), "request.element"),
    "integer-float": (tensor("[1,2.0]"), "request.element"),
    "integer-text": (tensor('[1,"2"]'), "request.element"),
    "integer-boolean": (tensor("[1,true]"), "request.element"),
    "integer-null": (tensor("[1,null]"), "request.element"),
    "float-text": (tensor('["1",2]', datatype="FP32"), "request.element"),
    "float-boolean": (tensor("[true,2]", datatype="FP64"), "request.element"),
    "boolean-number": (tensor("[0,1]", datatype="BOOL"), "request.element"),
    "bytes-number": (tensor('["a",1]', datatype="BYTES"), "request.element"),
    "bytes-surrogate": (tensor('["a","\\ud800"]', datatype="BYTES"), "request.text"),
    "int32-above": (tensor("[1,2147483648]"), "request.range"),
    "uint8-below": (tensor("[1,-1]", datatype="UINT8"), "request.range"),
    "uint64-above": (tensor("[1,18446744073709551616]", datatype="UINT64"), "request.range"),
    "fp32-above": (tensor("[1,1e39]", datatype="FP32"), "request.range"),
    "fp64-above": (tensor("[1,1e999]", datatype="FP64"), "request.range"),
    "fp64-integer": (tensor(f"[1,1{'0' * 400}]", datatype="FP64"), "request.range"),
    "fp16": (tensor("[1,2]", datatype="FP16"), "request.fp16-json"),
}  # fmt: skip
INT32 = bytes(8)
BINARY = {
    "size-text": (binary("8"), INT32, "request.binary-size"),
    "size-boolean": (binary(True), INT32, "request.binary-size"),  # noqa: FBT003 - the fault
    "size-negative": (binary(-8), INT32, "request.binary-size"),
    "size-fraction": (binary(8.0), INT32, "request.binary-size"),
    "size-small": (binary(4), bytes(4), "request.binary-size"),
    "size-large": (binary(12), bytes(12), "request.binary-size"),
    "shortage": (binary(8), bytes(7), "request.binary-shortage"),
    "surplus": (binary(8), bytes(9), "request.binary-surplus"),
    "both": (binary(8, extra=',"data":[1,2]'), INT32, "request.data"),
    "surplus-json": (VALID, b"x", "request.binary-surplus"),
    "bool-2": (binary(2, datatype="BOOL"), b"\x01\x02", "request.element"),
    "bytes-header": (binary(7, datatype="BYTES"), bytes(7), "request.bytes-length"),
    "bytes-body": (binary(8, datatype="BYTES"), b"\x00\0\0\0\x01\0\0\0", "request.bytes-length"),
    "bytes-huge": (binary(4, "[1]", "BYTES"), b"\xff" * 4, "request.bytes-length"),
    "bytes-few": (binary(4, datatype="BYTES"), bytes(4), "request.count"),
    "bytes-many": (binary(12, datatype="BYTES"), bytes(12), "request.count"),
    "bytes-none": (binary(4, "[0]", "BYTES"), bytes(4), "request.count"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code"), ENVELOPES.values(), ids=ENVELOPES)
def test_malformed_request_has_its_code(body: bytes, code: str) -> None:
    """A fault outside the tensors is told by its code."""
    error = fault(body)
    assert isinstance(error, InvalidRequestError)
    assert error.code == code
    assert error.message.isprintable()


@pytest.mark.parametrize(("body", "code"), TENSORS.values(), ids=TENSORS)
def test_malformed_input_is_named(body: bytes, code: str) -> None:
    """A fault of an input is told by its code and the input's name or place."""
    error = fault(body)
    assert isinstance(error, InvalidRequestError)
    assert error.code == code
    assert "input 'x'" in error.message or "input 0" in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize(("header", "blob", "code"), BINARY.values(), ids=BINARY)
def test_malformed_binary_input_has_its_code(header: bytes, blob: bytes, code: str) -> None:
    """Bytes that do not fit what the JSON says of them are told by their code."""
    error = fault(header + blob, len(header))
    assert isinstance(error, InvalidRequestError)
    assert error.code == code


def test_duplicate_inputs_are_refused() -> None:
    """Two inputs of one name are an error even where both are well formed."""
    entry = '{"name":"x","shape":[1],"datatype":"INT8","data":[1]}'
    assert fault(f'{{"inputs":[{entry},{entry}]}}'.encode()).code == "request.duplicate-input"


@pytest.mark.parametrize("length", [-1, len(VALID) + 1, 2**63])
def test_header_length_outside_the_body_is_refused(length: int) -> None:
    """The JSON cannot end outside the body."""
    assert fault(VALID, length).code == "request.header-length"


def test_binary_input_without_header_length_is_a_shortage() -> None:
    """Without the header all of the body is JSON, and nothing is left for the tensor."""
    assert fault(binary(8)).code == "request.binary-shortage"


UNSUPPORTED = {
    "raw-binary": (bytes(8), 0, "request.raw-binary"),
    "shared-memory": (
        VALID.replace(b'"data"', b'"parameters":{"shared_memory_region":"r"},"data"'),
        None,
        "request.shared-memory",
    ),
    "shared-memory-output": (
        VALID[:-1] + b',"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]}',
        None,
        "request.shared-memory",
    ),
    "classification": (
        VALID[:-1] + b',"outputs":[{"name":"y","parameters":{"classification":3}}]}',
        None,
        "request.classification",
    ),
}


@pytest.mark.parametrize(("body", "length", "code"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_is_not_done_here_is_said(body: bytes, length: int | None, code: str) -> None:
    """What would change the answer and is not done is refused, never ignored."""
    error = fault(body, length)
    assert isinstance(error, UnsupportedError)
    assert error.code == code
    assert error.hint


ENTRY = b'{"name":"x","shape":[1],"datatype":"INT8","data":[1]}'
TOO_LARGE = {
    "body": (VALID + b" " * 20_000, None, "request.body-size"),
    "json": (VALID + b" " * 15_000, None, "request.json-size"),
    "depth": (b'{"inputs":' + b"[" * 12, None, "request.json-depth"),
    "depth-objects": (b'{"a":' * 13, None, "request.json-depth"),
    "depth-in-strings": (b'["]]]]]]",' * 13, None, "request.json-depth"),
    "depth-escaped": (b'["\\"]]",' * 13, None, "request.json-depth"),
    "rank": (tensor("[1]", "[1,1,1,1,1]"), None, "request.rank"),
    "elements": (tensor("[1]", "[101]"), None, "request.elements"),
    "elements-product": (tensor("[1]", "[4294967296,4294967296]"), None, "request.elements"),
    "elements-behind-zero": (tensor("[]", "[0,4294967296]"), None, "request.elements"),
    "elements-bytes": (tensor("[1]", "[11]", "BYTES"), None, "request.elements"),
    "inputs": (b'{"inputs":[' + b",".join([ENTRY] * 6) + b"]}", None, "request.entries"),
    "outputs": (
        VALID[:-1] + b',"outputs":[' + b",".join([b'{"name":"y"}'] * 6) + b"]}",
        None,
        "request.entries",
    ),
    "parameters": (
        b'{"parameters":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}}',
        None,
        "request.entries",
    ),
}


@pytest.mark.parametrize(("body", "length", "code"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_limits_are_kept(body: bytes, length: int | None, code: str) -> None:
    """What goes beyond a limit is refused by that limit."""
    error = fault(body, length)
    assert isinstance(error, TooLargeError)
    assert error.code == code


def test_brackets_in_strings_are_no_nesting() -> None:
    """Text may hold any number of brackets."""
    text = json.dumps("[{" * 50 + '"\\')
    body = tensor(f"[{text},{text}]", datatype="BYTES")
    request = http.decode_infer(body, model="m", version="", header_length=None, limits=LIMITS)
    assert request.inputs[0].array.tolist() == [b"[{" * 50 + b'"\\'] * 2


def test_depth_beyond_the_interpreter_is_refused() -> None:
    """Where the limit allows more than the interpreter can parse, the error is the same."""
    body = b'{"x":' + b"[" * 200_000
    with pytest.raises(TooLargeError) as raised:
        http.decode_infer(
            body, model="m", version="", header_length=None, limits=Limits(max_json_depth=10**6)
        )
    assert raised.value.code == "request.json-depth"


def test_long_values_from_the_network_are_cut_in_sentences() -> None:
    """A sentence does not grow with what the client sent."""
    error = fault(tensor("[1,2]", name=f'"{"x" * 10_000}"'))
    assert len(str(error)) < 200
