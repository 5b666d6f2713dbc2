"""A session on OpenVINO: the graph's own numbers, or an error."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bundles import ASSETS, GOOD, MODEL, WEIGHT, linear_model, onnx_bytes
from graphs import (
    encode_text,
    external_model,
    identity_model,
    text_encoder,
    wide_model,
    write_external,
)
from onnx import TensorProto, helper

from headrace.bundle.manifest import Arithmetic
from headrace.engine.openvino import MOST_EXPECTED, PLACE, OpenVinoSession, load_openvino
from headrace.errors import BundleError, InternalError, InvalidRequestError, MissingError
from headrace.tensors import Array

CAPABILITIES = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
ROW = np.ones((1, 3), np.float32)
XML = b'<?xml version="1.0"?><net name="x" version="11"></net>'

WITHOUT_OPENVINO = """
import sys
sys.modules["openvino"] = None  # as if it were not installed
from headrace.engine.openvino import MOST_EXPECTED, OpenVinoSession
from headrace.errors import MissingError
try: OpenVinoSession(b"")
except MissingError as error: print(error.code, error.hint)
"""
LISTEN = """
import sys
from pathlib import Path
heard = []
sys.addaudithook(lambda event, arguments: heard.append(event))
import numpy as np
from headrace.engine.openvino import MOST_EXPECTED, OpenVinoSession
OpenVinoSession(Path(sys.argv[1])).run({"x": np.ones((1, 3), np.float32)})
loud = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn", "os.fork")
print(sorted(set(heard) & set(loud)), sys.modules["openvino_telemetry"])
"""


@pytest.fixture(scope="module")
def linear() -> OpenVinoSession:
    """The linear graph."""
    return OpenVinoSession(linear_model(), threads=1)


@pytest.mark.parametrize("source", ["path", "bytes"])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_session_answers(source: str, threads: int) -> None:
    """A session computes the graph in float32, from a file or from bytes."""
    model = GOOD / MODEL if source == "path" else linear_model()
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    answer = OpenVinoSession(model, threads=threads).run({"x": x})
    assert answer.keys() == {"y"}
    np.testing.assert_allclose(answer["y"].astype(np.float32), x @ WEIGHT, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arithmetic", ["bf16", "fp16"])
def test_arithmetic_is_had_or_refused(arithmetic: Arithmetic) -> None:
    """A 16-bit arithmetic is computed where the processor has it, and refused elsewhere."""
    weight = np.random.default_rng(1).normal(size=(256, 64)).astype(np.float32)
    x = np.random.default_rng(2).normal(size=(4, 256)).astype(np.float32)
    if arithmetic.upper() not in CAPABILITIES:
        with pytest.raises(MissingError, match=arithmetic) as caught:
            OpenVinoSession(wide_model(weight), arithmetic=arithmetic)
        assert caught.value.code == "engine.arithmetic"
        return
    exact = OpenVinoSession(wide_model(weight)).run({"x": x})["y"].astype(np.float32)
    rounded = OpenVinoSession(wide_model(weight), arithmetic=arithmetic).run({"x": x})["y"]
    difference = np.abs(rounded.astype(np.float32) - exact).max()
    assert 1e-4 < difference < 0.5


def test_compiled_precision_is_believed_over_the_capability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A precision that OpenVINO replaces by another is an error: it takes bf16 for fp16."""
    if "FP16" in CAPABILITIES:
        return  # then it is not replaced
    monkeypatch.setattr("headrace.engine.openvino._HINTS", {"fp32": ("f16", "FP32")})
    with pytest.raises(MissingError, match="OpenVINO took") as caught:
        OpenVinoSession(linear_model())
    assert caught.value.code == "engine.arithmetic"


def test_missing_package_is_named() -> None:
    """Where openvino is not installed, the error says what to install."""
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPENVINO], capture_output=True, text=True, check=True
    )
    assert told.stdout.split(maxsplit=1)[0] == "extra.openvino"
    assert "headrace[openvino]" in told.stdout


def test_nothing_is_sent_and_nothing_started() -> None:
    """OpenVINO tells its maker of every import: here it opens no connection, starts no process."""
    heard = subprocess.run(
        [sys.executable, "-c", LISTEN, GOOD / MODEL], capture_output=True, text=True, check=True
    )
    assert (heard.stdout, heard.stderr) == ("[] None\n", "")


@pytest.mark.parametrize("model", [b"", b"rubbish", linear_model()[:-9], XML], ids=range(4))
def test_broken_graph_is_the_bundles_fault(model: bytes) -> None:
    """Bytes that are no ONNX graph are refused, though OpenVINO reads other formats."""
    with pytest.raises(BundleError) as caught:
        OpenVinoSession(model)
    assert caught.value.code == "bundle.graph"


@pytest.mark.parametrize("fault", ["absent", "broken-graph", "external-data-escaping"])
def test_graph_that_does_not_load_is_refused(fault: str) -> None:
    """A file that is not there, is broken, or takes weights from outside the bundle is refused."""
    with pytest.raises(BundleError) as caught:
        OpenVinoSession(ASSETS / f"{fault}.bundle" / MODEL)
    assert caught.value.code == "bundle.graph"


@pytest.mark.parametrize("location", ["../weight.bin", "/weight.bin", "a/../../weight.bin"])
def test_external_data_may_not_leave_the_graphs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """Weights beside a graph are read; those above it are not, though the working folder has it."""
    monkeypatch.chdir(tmp_path)
    inside = write_external(tmp_path / "inside", "weight.bin")
    np.testing.assert_array_equal(OpenVinoSession(inside).run({"x": ROW})["y"], ROW @ WEIGHT)
    said = location.replace("/weight", f"{tmp_path}/weight") if location[0] == "/" else location
    outside = write_external(tmp_path / "outside" / "model", said)
    with pytest.raises(BundleError) as caught:
        OpenVinoSession(outside)
    assert caught.value.code == "bundle.graph"


def test_graph_given_as_bytes_has_no_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes with external data are refused, though a file of its name is in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weight.bin").write_bytes(WEIGHT.tobytes())
    with pytest.raises(BundleError) as caught:
        OpenVinoSession(external_model("weight.bin"))
    assert caught.value.code == "bundle.graph"


@pytest.mark.parametrize(
    "datatype",
    [TensorProto.STRING, TensorProto.DOUBLE, TensorProto.UINT32, TensorProto.UINT64],
)
def test_datatype_that_would_be_rounded_is_refused(datatype: int) -> None:
    """What OpenVINO would compute in fewer bits than the graph declares is refused at the load."""
    with pytest.raises(BundleError, match="'x' is ") as caught:
        OpenVinoSession(identity_model(datatype))
    assert caught.value.code == "bundle.graph"


@pytest.mark.parametrize(
    ("datatype", "numbers"),
    [
        (TensorProto.BOOL, np.array([True, False])),
        (TensorProto.INT8, np.array([-128, 127], np.int8)),
        (TensorProto.UINT8, np.array([0, 255], np.uint8)),
        (TensorProto.UINT16, np.array([0, 65535], np.uint16)),
        (TensorProto.INT32, np.array([-(2**31), 2**31 - 1], np.int32)),
        (TensorProto.INT64, np.array([-(2**31), 2**31 - 1], np.int64)),
        (TensorProto.FLOAT16, np.array([0.1, 6e4], np.float16)),
        (TensorProto.FLOAT, np.array([1e-30, 1e30, np.inf], np.float32)),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_numbers_come_back_as_they_went(datatype: int, numbers: Array) -> None:
    """Every other datatype keeps its extremes and its dtype."""
    answer = OpenVinoSession(identity_model(datatype)).run({"x": numbers})["y"]
    assert answer.dtype == numbers.dtype
    np.testing.assert_array_equal(answer, np.concatenate([numbers, numbers]))


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**62])
def test_integers_of_more_than_32_bits_are_refused(number: int) -> None:
    """An id that OpenVINO would cut to 32 bits is the request's fault, and not another id."""
    session = OpenVinoSession(identity_model(TensorProto.INT64))
    for order in "<>":
        with pytest.raises(InvalidRequestError, match="'x' holds") as caught:
            session.run({"x": np.array([1, number], f"{order}i8")})
        assert caught.value.code == "request.range"
    assert session.run({"x": np.zeros(0, np.int64)})["y"].shape == (0,)


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
def test_layout_of_an_array_does_not_change_the_answer(
    linear: OpenVinoSession, change: object
) -> None:
    """Byte order, order of axes, strides and alignment of an input mean nothing."""
    assert callable(change)
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    changed = change(x)
    np.testing.assert_array_equal(changed, x)
    np.testing.assert_array_equal(linear.run({"x": changed})["y"], linear.run({"x": x})["y"])


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": ROW},
        {"x": ROW, "z": ROW},
        {"x": np.zeros((1, 3), np.float64)},
        {"x": np.zeros((1, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.array([[b"a", b"b", b"c"]], object)},
    ],
    ids=["nothing", "other name", "one more", "other dtype", "other size", "other rank", "bytes"],
)
def test_failing_run_is_an_internal_error_and_leaves_nothing(
    linear: OpenVinoSession, inputs: dict[str, Array]
) -> None:
    """What the engine would cast, or take from the run before, is an error; the next run is not."""
    linear.run({"x": 5 * ROW})
    with pytest.raises(InternalError) as caught:
        linear.run(inputs)
    assert caught.value.code == "model.failed"
    np.testing.assert_array_equal(linear.run({"x": ROW})["y"], ROW @ WEIGHT)


def test_next_run_does_not_overwrite_an_answer(linear: OpenVinoSession) -> None:
    """An answer is the caller's, and so is the array that was given."""
    x = ROW.copy()
    first = linear.run({"x": x})["y"]
    kept = first.copy()
    linear.run({"x": 7 * ROW})
    assert first.flags.writeable
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(x, ROW)


def test_dynamic_batch_and_sequence() -> None:
    """Any batch and any sequence length is computed, in any order."""
    session = OpenVinoSession(text_encoder(), threads=1)
    random = np.random.default_rng(5)
    for batch, length in ((1, 5), (3, 17), (1, 5), (2, 1), (8, 64), (1, 6)):
        ids = random.integers(0, 30, (batch, length))
        mask = np.ones((batch, length), np.int64)
        mask[:, length // 2 + 1 :] = 0
        vectors = session.run({"ids": ids, "mask": mask})["vectors"].astype(np.float32)
        np.testing.assert_allclose(vectors, encode_text(ids, mask), rtol=1e-4, atol=1e-5)


def test_many_threads_each_get_their_own_rows(linear: OpenVinoSession) -> None:
    """Eight callers at once get the answers to their own inputs."""

    def call(seed: int) -> bool:
        random = np.random.default_rng(seed)
        for _ in range(40):
            x = random.normal(size=(int(random.integers(1, 9)), 3)).astype(np.float32)
            answer = linear.run({"x": x})["y"].astype(np.float32)
            if not np.allclose(answer, x @ WEIGHT, rtol=1e-5, atol=1e-5):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(8)))


def test_outputs_keep_the_names_of_the_graph() -> None:
    """Outputs that are one tensor, or an input, are told apart by the names the graph gives."""
    model = onnx_bytes(
        [
            helper.make_node("Relu", ["x"], ["a/b:0"]),
            helper.make_node("Identity", ["a/b:0"], ["c"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("c", "a/b:0", "x")],
        {},
    )
    x = np.array([-1, 2], np.float32)
    answer = OpenVinoSession(model).run({"x": x})
    assert {name: array.tolist() for name, array in answer.items()} == {
        "c": [0, 2],
        "a/b:0": [0, 2],
        "x": [-1, 2],
    }


def test_placement_is_named(linear: OpenVinoSession) -> None:
    """The operations that run are counted under the engine's name."""
    assert linear.placement.keys() == {PLACE}
    assert linear.placement[PLACE] > 0


def test_expected_shapes_are_answered_as_all_others() -> None:
    """A session that was told of a shape answers it, and any other, as before."""
    session, told = (OpenVinoSession(linear_model(), threads=1) for _ in range(2))
    rows = [np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) for n in range(1, 9)]
    for x in rows:
        told.expect({"x": x})
    assert len(told._fixed) == MOST_EXPECTED
    for x in rows:
        assert np.allclose(told.run({"x": x})["y"], session.run({"x": x})["y"], atol=1e-6)


def test_a_shape_that_the_graph_does_not_take_is_not_prepared() -> None:
    """What is expected need not come true: the session goes on as it was."""
    session = OpenVinoSession(linear_model(), threads=1)
    session.expect({"x": np.zeros((1, 5), np.float32)})
    assert session._fixed == {}
    assert session.run({"x": np.ones((1, 3), np.float32)})["y"].shape == (1, 4)
