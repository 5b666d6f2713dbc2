"""A session: one graph on exactly the provider that was asked for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundles import ASSETS, GOOD, MODEL, WEIGHT, linear_model, onnx_bytes
from graphs import external_model, wide_model
from onnx import TensorProto, helper

from headrace.engine.session import CPU, GRAPH_FILE, WEIGHTS_FILE, OrtSession
from headrace.errors import BundleError, InternalError, InvalidRequestError, MissingError
from headrace.tensors import Array


@pytest.fixture
def text_session() -> OrtSession:
    """The identity of strings."""
    return OrtSession(
        onnx_bytes(
            [helper.make_node("Identity", ["s"], ["t"])],
            [helper.make_tensor_value_info("s", TensorProto.STRING, None)],
            [helper.make_tensor_value_info("t", TensorProto.STRING, None)],
            {},
        )
    )


def _texts(elements: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


@pytest.mark.parametrize("source", ["path", "bytes"])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_session_answers(source: str, threads: int) -> None:
    """A session computes the graph, from a file or from bytes, on any number of threads."""
    model = GOOD / MODEL if source == "path" else linear_model()
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    answer = OrtSession(model, threads=threads).run({"x": x})
    assert answer.keys() == {"y"}
    np.testing.assert_allclose(answer["y"].astype(np.float32), x @ WEIGHT, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "NoSuchProvider", ""])
def test_absent_provider_is_an_error_that_names_those_there(provider: str) -> None:
    """A provider that is not there is never replaced by another."""
    there = onnxruntime.get_available_providers()
    if provider in there:
        provider = "TensorrtExecutionProvider" if provider not in there else "NoSuchProvider"
    with pytest.raises(MissingError) as caught:
        OrtSession(linear_model(), provider=provider)
    assert caught.value.code == "provider.missing"
    assert CPU in caught.value.message


@pytest.mark.parametrize("model", [b"", b"rubbish", linear_model()[:-9]], ids=range(3))
def test_broken_graph_is_the_bundles_fault(model: bytes) -> None:
    """Bytes that are no graph are refused."""
    with pytest.raises(BundleError) as caught:
        OrtSession(model)
    assert caught.value.code == "bundle.graph"


@pytest.mark.parametrize("fault", ["absent", "broken-graph", "external-data-escaping"])
def test_nothing_is_said_on_standard_output(fault: str) -> None:
    """A graph that does not load leaves standard output to the program's own document."""
    program = (
        "import sys; from pathlib import Path\n"
        "from headrace.engine.session import OrtSession\n"
        "from headrace.errors import BundleError\n"
        "try: OrtSession(Path(sys.argv[1]))\n"
        "except BundleError: sys.exit(9)\n"
    )
    model = ASSETS / f"{fault}.bundle" / MODEL
    ended = subprocess.run(
        [sys.executable, "-c", program, model], capture_output=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (9, b"")


def test_graph_without_tensors_is_refused() -> None:
    """A graph that gives a sequence is refused when it is loaded, not when it is asked."""
    model = onnx_bytes(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
        {},
    )
    with pytest.raises(BundleError, match=r"'s' is a seq\(tensor\(float\)\)") as caught:
        OrtSession(model)
    assert caught.value.code == "bundle.graph"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(">f4"),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 3),
    ],
    ids=["big-endian", "column by column", "strided", "unaligned and read-only"],
)
def test_layout_of_an_array_does_not_change_the_answer(change: object) -> None:
    """Byte order, order of axes, strides and alignment of an input mean nothing."""
    assert callable(change)
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    session = OrtSession(linear_model())
    changed = change(x)
    np.testing.assert_array_equal(changed, x)
    np.testing.assert_array_equal(session.run({"x": changed})["y"], session.run({"x": x})["y"])


@pytest.mark.parametrize("shape", [(6,), (2, 3), (6, 1), ()])
def test_strings_go_in_and_come_out_as_bytes(
    text_session: OrtSession, shape: tuple[int, ...]
) -> None:
    """UTF-8 of any length and content survives a model of strings, in any shape."""
    elements = [b"a", b"", "grüße 🌊".encode(), b"a\0b", b"\0", b"long " * 100]
    array = _texts(elements[: max(1, int(np.prod(shape)))], shape)
    answer = text_session.run({"s": array})["t"]
    assert answer.shape == shape
    assert answer.dtype == object
    assert answer.ravel().tolist() == array.ravel().tolist()


def test_no_strings_are_strings_too(text_session: OrtSession) -> None:
    """An array of no strings keeps its shape."""
    answer = text_session.run({"s": _texts([], (0, 2))})["t"]
    assert (answer.shape, answer.dtype) == ((0, 2), np.dtype(object))


@pytest.mark.parametrize("element", [b"\xff", b"\xed\xa0\x80", b"ok\xc3"])
def test_bytes_that_are_no_text_are_the_requests_fault(
    text_session: OrtSession, element: bytes
) -> None:
    """What is not UTF-8 cannot be given to the engine, and is told to the caller."""
    with pytest.raises(InvalidRequestError, match="'s' holds bytes that are not UTF-8") as caught:
        text_session.run({"s": _texts([b"fine", element], (2,))})
    assert caught.value.code == "request.text"


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": np.zeros((1, 3), np.float32)},
        {"x": np.zeros((1, 3), np.float64)},
        {"x": np.zeros((1, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
    ],
    ids=["nothing", "other name", "other dtype", "other size", "other rank"],
)
def test_failing_graph_is_an_internal_error(inputs: dict[str, Array]) -> None:
    """What the engine refuses is an error of ours, whatever it raises."""
    with pytest.raises(InternalError) as caught:
        OrtSession(linear_model()).run(inputs)
    assert caught.value.code == "model.failed"


def test_session_reads_external_data_beside_the_graph_alone(tmp_path: Path) -> None:
    """A graph whose weights lie outside its directory is refused."""
    model = ASSETS / "external-data-escaping.bundle" / MODEL
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    with pytest.raises(BundleError) as caught:
        OrtSession(tmp_path / "model.onnx")
    assert caught.value.code == "bundle.graph"


def test_graph_given_as_bytes_has_no_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes with external data are refused, though a file of its name is in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weight.bin").write_bytes(WEIGHT.tobytes())
    with pytest.raises(BundleError, match="xternal data") as caught:
        OrtSession(external_model("weight.bin"))
    assert caught.value.code == "bundle.graph"


def test_placement_counts_the_nodes_of_each_provider() -> None:
    """Every node of a graph is placed, and on the CPU where nothing else was asked for."""
    assert OrtSession(linear_model()).placement == {CPU: 1}


def test_saved_graph_answers_as_its_source_does(tmp_path: Path) -> None:
    """A graph saved with its prepacked weights gives the very numbers that its source gives."""
    weight = np.random.default_rng(3).normal(size=(64, 48)).astype(np.float32)
    source = wide_model(weight)
    OrtSession(source, save_to=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {GRAPH_FILE, WEIGHTS_FILE}
    saved = OrtSession(tmp_path / GRAPH_FILE, optimize=False)
    x = np.random.default_rng(4).normal(size=(5, 64)).astype(np.float32)
    np.testing.assert_array_equal(saved.run({"x": x})["y"], OrtSession(source).run({"x": x})["y"])


def test_graph_that_cannot_be_saved_is_an_error(tmp_path: Path) -> None:
    """Saving where nothing can be written fails."""
    with pytest.raises(BundleError):
        OrtSession(linear_model(), save_to=tmp_path / "absent")
