"""Models that come as files: several inputs and outputs, sequences, states and branches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from headrace.engine.session import OrtSession
from headrace.errors import UsageError
from headrace.tensors import Array
from headrace_compiler.graph import Graph
from headrace_compiler.source import Source
from headrace_compiler.steps.simplify import simplify

Export = Callable[..., Any]
FREE = torch.export.Dim.DYNAMIC


class Pooled(nn.Module):
    """The masked mean of embeddings, and how many tokens took part."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """int64 (batch, length) twice to float32 (batch, 6) and int64 (batch, 1)."""
        count = mask.sum(dim=1, keepdim=True)
        total = (self.words(ids) * mask.unsqueeze(-1)).sum(dim=1)
        return {"mean": total / count.clamp(min=1), "count": count}


class Memory(nn.Module):
    """One step of a recurrent network, which takes its state and hands it back."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(
        self, x: torch.Tensor, state: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 (streams, 3), (1, streams, 4) and a scalar to (streams,) and the next state."""
        after = self.cell(x * scale, state[0])
        return after.sum(dim=1), after.unsqueeze(0)


@dataclass(frozen=True)
class Case:
    """A module with an example, its free axes, and the recipe that declares it."""

    module: type[nn.Module]
    example: Mapping[str, torch.Tensor]
    axes: Mapping[str, Mapping[int, object]]
    parts: Mapping[str, str]


POOLED = Case(
    Pooled,
    {name: torch.ones(2, 5, dtype=torch.int64) for name in ("ids", "mask")},
    {name: {0: FREE, 1: FREE} for name in ("ids", "mask")},
    {
        "inputs": '[TensorSpec(name=n, datatype="INT64", shape=("batch", "length"))'
        ' for n in ("ids", "mask")]',
        "sample": 'yield {"ids": generator.integers(0, 50, (1, 4 + _)),'
        ' "mask": generator.integers(0, 2, (1, 4 + _))}',
    },
)
MEMORY = Case(
    Memory,
    {"x": torch.ones(2, 3), "state": torch.ones(1, 2, 4), "scale": torch.tensor(2.0)},
    {"x": {0: FREE}, "state": {1: FREE}, "scale": {}},
    {
        "inputs": '[TensorSpec(name="x", datatype="FP32", shape=("streams", 3)),'
        ' TensorSpec(name="state", datatype="FP32", shape=(1, "streams", 4)),'
        ' TensorSpec(name="scale", datatype="FP32", shape=())]',
        "sample": 'yield {"x": np.ones((1 + _, 3), np.float32),'
        ' "state": np.full((1, 1 + _, 4), 0.5, np.float32), "scale": np.array(2, np.float32)}',
    },
)


def write_program(case: Case, folder: Path) -> None:
    """Writes `net.pt2`."""
    torch.manual_seed(0)
    program = torch.export.export(
        case.module().eval(), (), dict(case.example), dynamic_shapes=dict(case.axes)
    )
    torch.export.save(program, folder / "net.pt2")


def agree(source: Source, graph: Graph, requests: Sequence[Mapping[str, Array]]) -> None:
    """Checks that the simplified graph gives what the source gives."""
    session = OrtSession(simplify(graph).content)
    for request in requests:
        answer = session.run(request)
        for name, expected in source.run(request).items():
            assert answer[name].dtype == expected.dtype
            assert np.allclose(answer[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [POOLED, MEMORY], ids=["sequence", "state"])
def test_a_program_and_its_graph_agree(tmp_path: Path, exported: Export, case: Case) -> None:
    """A .pt2 file of several inputs and outputs becomes a graph; so does that graph's file."""
    write_program(case, tmp_path)
    made = exported(model='"net.pt2"', **case.parts)
    assert made.source.reference == "program"
    agree(made.source, made.graph, made.samples.inputs)
    (tmp_path / "net.onnx").write_bytes(made.graph.content)
    again = exported(model='"net.onnx"', **case.parts)
    assert again.source.reference == "graph"
    assert again.graph.inputs == made.graph.inputs
    assert again.graph.outputs == made.graph.outputs
    agree(made.source, again.graph, made.samples.inputs)


def test_a_sequence_keeps_its_free_length(tmp_path: Path, exported: Export) -> None:
    """Batch and length stay free, outputs are named, and other sizes than the example's run."""
    write_program(POOLED, tmp_path)
    made = exported(model='"net.pt2"', **POOLED.parts)
    assert [spec.shape for spec in made.graph.inputs] == [("batch", "length")] * 2
    assert [(spec.name, spec.shape) for spec in made.graph.outputs] == [
        ("mean", ("batch", 6)),
        ("count", ("batch", 1)),
    ]
    generator = np.random.default_rng(0)
    sizes = [(1, 1), (3, 17), (7, 128)]
    requests = [
        {"ids": generator.integers(0, 50, size), "mask": generator.integers(0, 2, size)}
        for size in sizes
    ]
    agree(made.source, made.graph, requests)


def test_a_state_goes_round(tmp_path: Path, exported: Export) -> None:
    """A state that is fed back gives, step by step, what the program gives."""
    write_program(MEMORY, tmp_path)
    made = exported(model='"net.pt2"', more="outputs=('y', 'next'),", **MEMORY.parts)
    session = OrtSession(made.graph.content)
    ours: Array = np.zeros((1, 2, 4), np.float32)
    theirs = ours
    for step in range(5):
        request = {"x": np.full((2, 3), step, np.float32), "scale": np.array(0.5, np.float32)}
        ours = session.run({**request, "state": ours})["next"]
        theirs = made.source.run({**request, "state": theirs})["next"]
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(ours, 0, atol=0.1)


def branching(path: Path, weight: float = 1.0) -> None:
    """Writes a graph with a branch for 8 columns and one for 6, whose weights lie in them."""
    float32, boolean = TensorProto.FLOAT, TensorProto.BOOL
    y = helper.make_tensor_value_info("y", float32, [None, 4])
    branches = {}
    for name, columns in (("then_branch", 8), ("else_branch", 6)):
        held = numpy_helper.from_array(np.full((columns, 4), weight, np.float32))
        nodes = [
            helper.make_node("Constant", [], [f"{name}_w"], value=held),
            helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"]),
        ]
        out = helper.make_tensor_value_info(f"{name}_y", float32, [None, 4])
        branches[name] = helper.make_graph(nodes, name, [], [out])
    inputs = [
        helper.make_tensor_value_info("x", float32, [None, None]),
        helper.make_tensor_value_info("wide", boolean, []),
    ]
    node = helper.make_node("If", ["wide"], ["y"], **branches)
    graph = helper.make_graph([node], "g", inputs, [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save_model(model, path)


def declared(columns: str) -> dict[str, str]:
    """The recipe's parts for a graph of `branching`."""
    return {
        "model": '"net.onnx"',
        "inputs": f'[TensorSpec(name="x", datatype="FP32", shape=("rows", {columns})),'
        ' TensorSpec(name="wide", datatype="BOOL", shape=())]',
        "sample": 'yield {"x": np.ones((2, 8), np.float32), "wide": np.array(True)}',
    }


def test_weights_inside_branches_count(tmp_path: Path, exported: Export) -> None:
    """Two files that differ in a branch's constant alone have other digests of their weights."""
    digests = set()
    for weight in (1.0, 2.0):
        branching(tmp_path / "net.onnx", weight)
        made = exported(**declared('"columns"'))
        digests.add(made.source.weights)
        narrow = {"x": np.ones((1, 6), np.float32), "wide": np.zeros((), np.bool_)}
        agree(made.source, made.graph, [*made.samples.inputs, narrow])
    assert len(digests) == 2


def test_a_size_that_a_branch_cannot_take_is_refused(tmp_path: Path, exported: Export) -> None:
    """Where a declared size contradicts a branch of the file, the error names the way out."""
    branching(tmp_path / "net.onnx")
    with pytest.raises(UsageError) as caught:
        exported(**declared("8"))
    assert caught.value.code == "model.sizes"
    assert "by a name instead of a size" in caught.value.hint
