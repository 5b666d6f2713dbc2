"""The HTTP edge of the real program, asked by httpx and by the stock tritonclient."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from edge_bundles import LABELS, png, png_bomb
from services import Service
from tritonclient.utils import InferenceServerException

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
X = np.array([[1, 2, 3], [-1, 0, 0.5]], np.float32)
INFER = "/v2/models/linear/infer"
COLOURS = "/v2/models/colours/infer"


@pytest.fixture
def stock(edge: Service) -> Iterator[triton.InferenceServerClient]:
    """The stock client."""
    with triton.InferenceServerClient(edge.url.removeprefix("http://")) as client:
        yield client


def asked(**more: object) -> dict[str, object]:
    """A JSON request for `linear`."""
    data = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": X.tolist()}
    return {"inputs": [{**data, **more}]}


def triton_input(name: str, array: np.ndarray[Any, Any], datatype: str) -> triton.InferInput:
    """A tensor of the stock client, sent as bytes."""
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def binary_request(header: dict[str, Any], *blobs: bytes) -> dict[str, Any]:
    """The content and headers of a request with bytes behind its JSON."""
    text = json.dumps(header).encode()
    return {
        "content": text + b"".join(blobs),
        "headers": {"inference-header-content-length": str(len(text))},
    }


def image_request(*images: bytes) -> dict[str, Any]:
    """A request for `colours` with encoded images."""
    blob = b"".join(len(image).to_bytes(4, "little") + image for image in images)
    entry = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(blob)},
    }
    return binary_request({"inputs": [entry]}, blob)


def refused(response: httpx.Response, status: int, code: str) -> str:
    """The sentence of a refusal, which has this status, this code and the one form of errors."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error", "code"}
    assert body["error"]
    return str(body["error"])


def test_health_and_server_metadata(http: httpx.Client) -> None:
    """The server says that it lives, that it is ready, and what it is."""
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    server = http.get("/v2").json()
    assert server["name"] == "headrace"
    assert server["extensions"] == ["binary_tensor_data"]
    assert re.match(r"\d+\.\d+", server["version"])


def test_stock_client_reads_health_and_metadata(stock: triton.InferenceServerClient) -> None:
    """The stock client finds the server and the model alive, ready and described."""
    assert stock.is_server_live()
    assert stock.is_server_ready()
    assert stock.is_model_ready("linear")
    assert stock.is_model_ready("linear", "1")
    assert not stock.is_model_ready("nobody")
    assert stock.get_server_metadata()["name"] == "headrace"
    assert stock.get_model_metadata("linear")["versions"] == ["1"]


def test_metadata_lists_raw_and_ready_inputs(http: httpx.Client) -> None:
    """A model with preprocessing offers its encoded images and its ready tensor."""
    body = http.get("/v2/models/colours").json()
    assert body["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "pixels", "datatype": "FP32", "shape": [-1, 3, 8, 8]},
    ]
    assert [entry["name"] for entry in body["outputs"]] == ["scores", "indices", "labels"]
    assert body["outputs"][2] == {"name": "labels", "datatype": "BYTES", "shape": [-1, 3]}


def test_model_ready_names_the_model(http: httpx.Client) -> None:
    """The readiness of a model holds its name, with and without a version in the path."""
    for path in ("/v2/models/linear/ready", "/v2/models/linear/versions/1/ready"):
        assert http.get(path).json() == {"name": "linear", "ready": True}


def test_json_in_json_out(http: httpx.Client) -> None:
    """JSON numbers come back as JSON numbers, with the request's id and the model's version."""
    answer = http.post(INFER, json={"id": "seven", **asked()}).json()
    assert {key: answer[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "linear",
        "model_version": "1",
        "id": "seven",
    }
    (output,) = answer["outputs"]
    assert output["shape"] == [2, 4]
    assert np.allclose(np.reshape(output["data"], (2, 4)), X @ WEIGHT)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_binary_and_json_mix(
    stock: triton.InferenceServerClient, *, binary_in: bool, binary_out: bool
) -> None:
    """The stock client may choose JSON or bytes for what it sends and for what it gets."""
    tensor = triton.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary_in)
    wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
    result = stock.infer("linear", [tensor], outputs=[wanted], request_id="b")
    assert np.allclose(result.as_numpy("y"), X @ WEIGHT)
    assert result.get_response()["id"] == "b"


def test_unaligned_binary_tensor(http: httpx.Client) -> None:
    """A tensor that starts at an odd byte of the body is read right."""
    header = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [2, 3],
                "parameters": {"binary_data_size": X.nbytes},
            }
        ]
    }
    for pad in range(4):
        request = binary_request({**header, "id": "p" * pad}, X.tobytes())
        answer = http.post(INFER, **request).json()
        assert np.allclose(answer["outputs"][0]["data"], (X @ WEIGHT).ravel())


def test_only_requested_outputs(http: httpx.Client) -> None:
    """Outputs come as asked for: those alone, in that order."""
    pixels = np.zeros((1, 3, 8, 8)).tolist()
    request = {
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": pixels}],
        "outputs": [{"name": "labels"}, {"name": "scores"}],
    }
    answer = http.post(COLOURS, json=request).json()
    assert [entry["name"] for entry in answer["outputs"]] == ["labels", "scores"]


def test_version_in_the_path(http: httpx.Client) -> None:
    """The served version may be named; another is refused with the one that is served."""
    served = http.post("/v2/models/linear/versions/1/infer", json=asked())
    assert served.status_code == 200
    response = http.post("/v2/models/linear/versions/2/infer", json=asked())
    assert "version 1" in refused(response, 404, "model.version-not-found")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/models/nobody", 404, "model.not-found"),
        ("GET", "/v2/models/nobody/ready", 404, "model.not-found"),
        ("POST", "/v2/models/nobody/infer", 404, "model.not-found"),
        ("GET", "/v2/models/linear/versions/9", 404, "model.version-not-found"),
        ("GET", "/v2/models/linear/config", 404, "path.not-found"),
        ("GET", "/", 404, "path.not-found"),
        ("GET", "/v2/", 404, "path.not-found"),
        ("GET", "/v2/models/a%2Fb/c/d/e", 404, "path.not-found"),
        ("GET", INFER, 405, "path.method"),
        ("DELETE", "/v2", 405, "path.method"),
        ("OPTIONS", "/metrics", 405, "path.method"),
    ],
)
def test_unknown_paths_and_methods(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    """Whatever is not there is refused in the one form of errors; 405 says what is allowed."""
    content = json.dumps(asked()) if method == "POST" else None
    response = http.request(method, path, content=content)
    refused(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "z"}, "request.inputs"),
        ({"datatype": "FP64"}, "request.datatype"),
        ({"datatype": "FP33"}, "request.datatype"),
        ({"shape": [3, 2]}, "request.nesting"),
        ({"shape": [6], "data": X.ravel().tolist()}, "request.shape"),
        ({"shape": [1, 3]}, "request.nesting"),
        ({"shape": [2, 4], "data": [[1, 2, 3, 4]] * 2}, "request.shape"),
        ({"shape": [0, 3], "data": []}, "request.empty"),
        ({"data": None}, "request.data"),
        ({"data": X.ravel().tolist()[:-1]}, "request.count"),
        ({"data": ["a"] * 6}, "request.element"),
    ],
)
def test_wrong_tensors(http: httpx.Client, change: dict[str, object], code: str) -> None:
    """A tensor of another name, datatype, shape or size is a 400 that says which."""
    refused(http.post(INFER, json=asked(**change)), 400, code)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", {}, 400, "request.json"),
        (b"{", {}, 400, "request.json"),
        (b"[]", {}, 400, "request.field"),
        (b"{}", {}, 400, "request.field"),
        (b'{"inputs":[' + b"[" * 1000, {}, 413, "request.json-depth"),
        (b"{}", {"inference-header-content-length": "-1"}, 400, "request.header-length"),
        (b"{}", {"inference-header-content-length": "99"}, 400, "request.header-length"),
        (b"{}", {"content-encoding": "gzip"}, 501, "request.encoding"),
        (b"{}", {"content-encoding": "x" * 500}, 501, "request.encoding"),
    ],
)
def test_malformed_bodies(
    http: httpx.Client, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """A body that is no request is refused with its reason."""
    assert len(refused(http.post(INFER, content=content, headers=headers), status, code)) < 300


def test_unknown_output(http: httpx.Client) -> None:
    """An output that the model does not give is refused with those that it gives."""
    response = http.post(INFER, json={**asked(), "outputs": [{"name": "z"}]})
    assert "answers y" in refused(response, 400, "request.outputs")


def test_too_many_rows(http: httpx.Client) -> None:
    """More rows than one request may have are a 413."""
    data = np.zeros((257, 3)).tolist()
    refused(http.post(INFER, json=asked(shape=[257, 3], data=data)), 413, "request.rows")


def test_shared_memory_is_not_done(http: httpx.Client) -> None:
    """Asking for shared memory is a 501, and not a misread tensor."""
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 24}
    response = http.post(INFER, json=asked(data=None, parameters=parameters))
    refused(response, 501, "request.shared-memory")


def test_image_becomes_labels(http: httpx.Client) -> None:
    """An encoded image is ranked by its colour."""
    (scores, indices, labels) = http.post(COLOURS, **image_request(png((0, 220, 0)))).json()[
        "outputs"
    ]
    assert indices["data"][0] == 1
    assert labels["data"][0] == "green"
    assert scores["data"][0] > 0.9


def test_batch_of_images_in_one_request(stock: triton.InferenceServerClient) -> None:
    """Several images of different sizes in one request get a row each, in their order."""
    colours = [(0, 0, 220), (220, 0, 0), (0, 220, 0)]
    images = [png(colour, (9 + 3 * number, 20)) for number, colour in enumerate(colours)]
    tensor = triton_input("image", np.array(images, dtype=object), "BYTES")
    result = stock.infer("colours", [tensor])
    assert result.as_numpy("indices")[:, 0].tolist() == [2, 0, 1]
    best = [label.decode() for label in result.as_numpy("labels")[:, 0]]
    assert best == ["blue", "red", "green"]
    assert set(best) < set(LABELS)


def test_raw_image_and_ready_tensor_agree(stock: triton.InferenceServerClient) -> None:
    """A ready tensor with the pixels of an image gets the ranking of the image."""
    raw = triton_input("image", np.array([png((10, 90, 200))], dtype=object), "BYTES")
    colour = (np.array([10, 90, 200], np.float32) - 127) / 64
    pixels = np.broadcast_to(colour[None, :, None, None], (1, 3, 8, 8)).astype(np.float32)
    one = stock.infer("colours", [raw])
    other = stock.infer("colours", [triton_input("pixels", pixels, "FP32")])
    assert np.array_equal(one.as_numpy("indices"), other.as_numpy("indices"))
    assert np.allclose(one.as_numpy("scores"), other.as_numpy("scores"), atol=1e-5)


def test_broken_image(http: httpx.Client) -> None:
    """Bytes that are no image, and half an image, are a 400."""
    for broken in (b"", b"hello", png((1, 2, 3))[:40]):
        refused(http.post(COLOURS, **image_request(broken)), 400, "request.image")


def test_one_broken_image_refuses_the_batch(http: httpx.Client) -> None:
    """A batch with one broken image is refused as a whole."""
    request = image_request(png((1, 2, 3)), b"broken")
    refused(http.post(COLOURS, **request), 400, "request.image")


def test_image_bomb(http: httpx.Client) -> None:
    """A small file that declares a huge image is refused by its header."""
    response = http.post(COLOURS, **image_request(png_bomb()))
    assert "pixels" in refused(response, 413, "request.image-pixels")


def test_base64_text_is_no_image(http: httpx.Client) -> None:
    """An image spelled as base64 in JSON is refused and not guessed at."""
    text = base64.b64encode(png((1, 2, 3))).decode()
    entry = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    refused(http.post(COLOURS, json={"inputs": [entry]}), 400, "request.image")


def test_stock_client_reads_refusals(stock: triton.InferenceServerClient) -> None:
    """The stock client raises our sentence as its own exception."""
    with pytest.raises(InferenceServerException, match="no model 'nobody' here"):
        stock.infer("nobody", [triton_input("x", X, "FP32")])
    with pytest.raises(InferenceServerException, match="content encoding 'gzip'"):
        stock.infer("linear", [triton_input("x", X, "FP32")], request_compression_algorithm="gzip")


def test_head_is_a_get_without_its_body(http: httpx.Client) -> None:
    """HEAD is answered like GET, with the length and without the body."""
    got, head = http.get("/v2/models/linear"), http.head("/v2/models/linear")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert http.head("/v2/nothing").status_code == 404


@pytest.mark.parametrize(
    "name", ["%00", "%0d%0aset-cookie:%20a=b", "%ff%fe", "linear%20", "..%2flinear", "%25", "é"]
)
def test_hostile_names_are_unknown_models(http: httpx.Client, name: str) -> None:
    """A percent-encoded name is decoded once, known or unknown, and never becomes a header."""
    response = http.get(f"/v2/models/{name}")
    assert response.status_code == 404
    assert response.json().keys() == {"error", "code"}
    assert "set-cookie" not in response.headers


def test_percent_encoded_name_is_the_name(http: httpx.Client) -> None:
    """A name may come percent-encoded."""
    assert http.get("/v2/models/%6Cine%61r").json()["name"] == "linear"


def test_refusal_of_a_long_name_is_short(http: httpx.Client) -> None:
    """A name of many thousand letters is not sent back."""
    assert len(http.get(f"/v2/models/{'a' * 30_000}").content) < 300
