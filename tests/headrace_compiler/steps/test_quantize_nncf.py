"""Static int8 quantization by NNCF, which must not report anything to anybody."""

import logging
import sys
from pathlib import Path

import onnx
import pytest
from networks import pictures_graph, pixels, texts_graph, tokens
from transformations import answers, elsewhere, operators, optimized, similarity

from headrace.errors import CheckError, MissingError, UsageError
from headrace_compiler.graph import Graph
from headrace_compiler.steps.prepare import prepare
from headrace_compiler.steps.quantize_nncf import quantize_nncf

_WATCHED = """
from headrace_compiler.steps.quantize_nncf import quantize_nncf

def batch(seed):
    generator = np.random.default_rng(seed)
    return {'pixels': generator.standard_normal((4, 3, 16, 16), dtype=np.float32)}

home = str(Path.home())

def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'subprocess.Popen'):
        raise SystemExit(f'{event} {arguments}')
    if event in ('open', 'os.mkdir') and str(arguments[0]).startswith(home):
        raise SystemExit(f'{event} {arguments}')

sys.addaudithook(watch)

def run():
    made = quantize_nncf(graph, map(batch, range(8)), preset='mixed', transformer=False, seed=0)
    import nncf.telemetry.wrapper as wrapper
    assert 'pytest' not in sys.modules
    assert not isinstance(wrapper.telemetry, wrapper.ITelemetry), wrapper.telemetry
    assert 'openvino_telemetry' not in sys.modules
    return made
"""


def pictures(*, preset: bool = False, uniform: bool = False) -> Graph:
    """The convolutional network, quantized with 32 samples."""
    return quantize_nncf(
        prepare(pictures_graph()),
        (pixels(4, seed) for seed in range(8)),
        preset="performance" if preset else "mixed",
        transformer=False,
        seed=0,
        uniform=uniform,
    )


@pytest.mark.parametrize("preset", [False, True])
def test_a_convolutional_network_is_quantized(*, preset: bool) -> None:
    """The answers are near those of the float graph."""
    graph = pictures_graph()
    made = pictures(preset=preset)
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    assert operators(made)["QuantizeLinear"] >= 4
    inputs = pixels(16, 9)
    assert similarity(answers(made, inputs)["scores"], answers(graph, inputs)["scores"]) > 0.99


def test_a_uniform_graph_runs_in_int8_on_onnxruntime(tmp_path: Path) -> None:
    """With one type and scale for each activation, every convolution is fused."""
    made = pictures(uniform=True)
    found = optimized(made, tmp_path)
    assert found["QLinearConv"] == 3
    assert found["Conv"] == found["FusedConv"] == 0
    model = onnx.load_from_string(made.content)
    kinds = {tensor.name: (tensor.data_type, [*tensor.dims]) for tensor in model.graph.initializer}
    points = [kinds[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert all(kind == (onnx.TensorProto.UINT8, []) for kind in points)
    inputs = pixels(16, 9)
    wanted = answers(pictures_graph(), inputs)["scores"]
    assert similarity(answers(made, inputs)["scores"], wanted) > 0.99


def test_a_transformer_of_several_lengths_is_quantized() -> None:
    """Texts need not have one length."""
    graph = prepare(texts_graph())
    batches = [tokens(2, length, seed) for seed, length in enumerate((5, 9, 12, 7))]
    made = quantize_nncf(graph, batches, preset="mixed", transformer=True, seed=0)
    assert operators(made)["QuantizeLinear"] >= 4
    inputs = tokens(4, 11, 9)
    assert similarity(answers(made, inputs)["vectors"], answers(graph, inputs)["vectors"]) > 0.98


def test_nothing_is_reported_and_the_bytes_are_the_same_elsewhere(tmp_path: Path) -> None:
    """Outside pytest, where NNCF would report: no connection, no file in the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    # ONNX Runtime has reports of its own; they are not this step's to stop.
    settings = {"HOME": str(home), "ORT_DISABLE_TELEMETRY": "1"}
    graph = prepare(pictures_graph())
    assert elsewhere(graph, _WATCHED, "run()", tmp_path, **settings) == pictures().content
    assert list(home.rglob("*")) == []


def test_nncf_leaves_loggers_and_the_screen_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """It sets the class of all loggers and prints its progress; neither is seen afterwards."""
    pictures()
    assert logging.getLoggerClass() is logging.Logger
    assert capfd.readouterr() == ("", "")
    assert sys.modules.get("openvino_telemetry", "absent") is not None


def test_without_samples_there_is_no_calibration() -> None:
    """An empty iterable is the recipe's fault."""
    with pytest.raises(UsageError) as caught:
        quantize_nncf(prepare(pictures_graph()), (), preset="mixed", transformer=False, seed=0)
    assert caught.value.code == "calibration.empty"


def test_what_nncf_cannot_take_is_one_sentence() -> None:
    """Its exceptions are chained to an error with a code."""
    with pytest.raises(CheckError) as caught:
        quantize_nncf(
            prepare(pictures_graph()),
            [{"elsewhere": pixels(1)["pixels"]}],
            preset="mixed",
            transformer=False,
            seed=0,
        )
    assert caught.value.code == "graph.quantize"
    assert "\n" not in caught.value.message


def test_without_nncf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be imported, one sentence says what to install."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingError) as caught:
        quantize_nncf(
            prepare(pictures_graph()), [pixels(1)], preset="mixed", transformer=False, seed=0
        )
    assert caught.value.code == "extra.compiler"
