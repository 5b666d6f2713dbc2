"""`predict`: what it reads, what it asks of a server, and what a server may answer."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from headrace.commands.predict import _print_rows, ask, read_inputs
from headrace.errors import HeadraceError, MissingError, UsageError

Respond = Callable[[BaseHTTPRequestHandler], object]
ROW = np.array([[1.0, 2.0, 3.0]], np.float32)


@contextmanager
def _server(respond: Respond) -> Iterator[str]:
    """The URL of a model on a server that responds as it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            respond(self)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v2/models/linear"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _send(status: int, body: bytes, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(status)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _write(content: bytes, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(content)
    handler.close_connection = True


def test_answer_of_a_server_has_its_shape() -> None:
    """The flat data of an answer is given the shape that it declares."""
    body = b'{"outputs": [{"name": "y", "shape": [2, 2], "data": [1, 2, 3, 4]}]}'
    with _server(partial(_send, 200, body)) as url:
        assert ask(f"{url}/", {"x": ROW}) == {"y": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(
    ("respond", "kind", "code"),
    [
        (partial(_send, 200, b"{}"), MissingError, "server.protocol"),
        (partial(_send, 200, b"<html>"), MissingError, "server.protocol"),
        (partial(_send, 200, b"\xff"), MissingError, "server.protocol"),
        (partial(_send, 200, b"[" * 100_000), MissingError, "server.protocol"),
        (partial(_send, 200, b'{"outputs": [{"name": "y"}]}'), MissingError, "server.protocol"),
        (
            partial(_send, 200, b'{"outputs": [{"name": "y", "data": [1], "shape": [2]}]}'),
            MissingError,
            "server.protocol",
        ),
        (
            partial(_send, 400, b'{"error": "no", "code": "request.shape"}'),
            UsageError,
            "request.shape",
        ),
        (
            partial(_send, 503, b'{"error": "no", "code": "server.busy"}'),
            MissingError,
            "server.busy",
        ),
        (partial(_send, 500, b"<html>"), MissingError, "server.error"),
        (partial(_send, 404, b"[]"), MissingError, "server.error"),
        (partial(_write, b"SSH-2.0-OpenSSH_9.9\r\n"), MissingError, "server.unreachable"),
        (
            partial(_write, b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n{"),
            MissingError,
            "server.unreachable",
        ),
        (partial(_write, b""), MissingError, "server.unreachable"),
    ],
    ids=range(13),
)
def test_any_server_is_survived(respond: Respond, kind: type[HeadraceError], code: str) -> None:
    """Whatever a server answers, it becomes one error with one sentence about it."""
    with _server(respond) as url, pytest.raises(kind) as caught:
        ask(url, {"x": ROW})
    assert caught.value.code == code
    assert url in caught.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://a b/", "http://[::", "http://"])
def test_no_server_is_told(url: str) -> None:
    """A port on which nobody listens, and a URL that is none, are told."""
    with pytest.raises(MissingError) as caught:
        ask(url, {"x": ROW})
    assert caught.value.code == "server.unreachable"


def test_files_become_inputs(tmp_path: Path) -> None:
    """An array is a whole input; files of bytes under one name are its rows, in order."""
    np.save(tmp_path / "x.npy", ROW)
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(name.encode())
    found = read_inputs(
        [f"image={tmp_path / 'b'}", f"x={tmp_path / 'x.npy'}", f"image={tmp_path / 'a'}"]
    )
    np.testing.assert_array_equal(found["x"], ROW)
    assert found["image"].tolist() == [b"b", b"a"]
    assert found["image"].dtype == object


@pytest.mark.parametrize("pair", ["", "x", "x=", "=/etc/hostname", "x=/no/such/file", "x=/"])
def test_pair_that_names_no_file_is_refused(pair: str) -> None:
    """An input is a name and a file that can be read."""
    with pytest.raises(UsageError) as caught:
        read_inputs([pair])
    assert caught.value.code == "predict.input"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04rubbish",
        b"\x80\x04pickle",
        b"\x93NUMPY\x01\0\x06\0{((((\n",
        b"\x93NUMPY\x09\0\x06\0{((((\n",
    ],
    ids=["empty", "begun", "archive", "pickle", "header", "version"],
)
def test_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that ends in .npy and is none is told in one sentence."""
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read .*x\.npy") as caught:
        read_inputs([f"x={tmp_path / 'x.npy'}"])
    assert caught.value.code == "predict.input"


def test_archives_and_objects_are_no_arrays(tmp_path: Path) -> None:
    """What NumPy would load as an archive, or would have to unpickle, is refused."""
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, x=ROW)
    np.save(tmp_path / "y.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("x", "y"):
        with pytest.raises(UsageError):
            read_inputs([f"{name}={tmp_path / name}.npy"])


@pytest.mark.parametrize("order", ["aa", "ab", "ba"])
def test_array_beside_another_file_is_refused(tmp_path: Path, order: str) -> None:
    """A second file under the name of an array is a mistake, and not taken silently."""
    np.save(tmp_path / "a.npy", ROW)
    (tmp_path / "b").write_bytes(b"row")
    files = {"a": tmp_path / "a.npy", "b": tmp_path / "b"}
    with pytest.raises(UsageError, match="'x' is given twice"):
        read_inputs([f"x={files[name]}" for name in order])


@pytest.mark.parametrize(
    "outputs",
    [
        {"scores": [0.5], "indices": [1]},
        {"scores": [[0.5, 0.1]], "indices": [1]},
        {"scores": [["a"]], "indices": [["b"]]},
        {"scores": [[0.5]], "indices": [[1]], "labels": ["cat"]},
        {"scores": 0.5, "indices": [[1]]},
        {"scores": [], "indices": []},
        {"y": "nan"},
    ],
    ids=range(7),
)
def test_outputs_of_any_shape_can_be_shown(
    outputs: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs that a model happens to call scores and indices need not be a ranking."""
    _print_rows(outputs)
    assert capsys.readouterr().out
