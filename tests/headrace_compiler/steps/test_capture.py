"""Capturing models: modules, programs, and what is said of models that cannot be captured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headrace.errors import UsageError
from headrace_compiler.loading import importable, load_recipe
from headrace_compiler.source import Source
from headrace_compiler.steps.capture import capture
from headrace_compiler.steps.samples import draw_samples

Write = Callable[..., Path]


def captured(path: Path) -> Source:
    """What capturing the recipe's model gives."""
    with importable(path.parent):
        recipe = load_recipe(path)
        return capture(recipe, path.parent, draw_samples(recipe, path.parent))


def refusal(path: Path) -> UsageError:
    """The error that capturing the recipe's model raises."""
    with pytest.raises(UsageError) as caught:
        captured(path)
    return caught.value


def test_a_module_is_captured_in_evaluation_mode(write_recipe: Write) -> None:
    """Dropout is off, weights are seeded, and the outputs get a name."""
    path = write_recipe(forward="return nn.functional.dropout(self.linear(x), 0.5, self.training)")
    first, second = captured(path), captured(path)
    assert first.reference == "eager"
    assert list(first.outputs) == ["output0"]
    assert first.weights == second.weights
    assert np.array_equal(first.outputs["output0"], second.outputs["output0"])


def test_other_seeds_give_other_weights(write_recipe: Write) -> None:
    """The recipe's seed is the one that the model is made with."""
    assert captured(write_recipe()).weights != captured(write_recipe(more="seed=1,")).weights


@pytest.mark.parametrize(
    ("forward", "more", "names"),
    [
        ("return {'a': x, 'b': self.linear(x)}", "", ["a", "b"]),
        ("return x * 2, self.linear(x)", "", ["output0", "output1"]),
        ("return [x * 2, self.linear(x)]", "outputs=('y', 'z'),", ["y", "z"]),
        ("return {'a': x, 'b': self.linear(x)}", "outputs=('y', 'z'),", ["y", "z"]),
    ],
)
def test_outputs_are_named(write_recipe: Write, forward: str, more: str, names: list[str]) -> None:
    """By the recipe, or else by the keys of a dictionary, or else by number."""
    assert list(captured(write_recipe(forward=forward, more=more)).outputs) == names


@pytest.mark.parametrize(
    ("parts", "code", "sentence"),
    [
        ({"model": "Net()"}, "recipe.model", "must be a function that returns one"),
        ({"model": "lambda: 3"}, "recipe.model", "returns a int"),
        ({"model": "lambda: Net(5)"}, "model.failed", "recipe.py:27: model=lambda: Net(5),"),
        ({"forward": "return x @ x"}, "model.run", "x [2, 8]: RuntimeError"),
        ({"forward": "return x @ x"}, "model.run", "(recipe.py:15: return x @ x)"),
        ({"forward": "return [[x]]"}, "model.run", "output0 is a list"),
        ({"forward": "return None"}, "model.run", "output0 is a NoneType"),
        ({"forward": "return self.linear(x).sum()"}, "model.rows", "has shape []"),
        ({"forward": "return torch.log(-x * x)"}, "model.not-finite", "NaN or infinity"),
        ({"more": "outputs=('a', 'b'),"}, "recipe.outputs", "declares 2 outputs (a, b)"),
    ],
)
def test_a_model_that_cannot_be_made_or_run_is_refused(
    write_recipe: Write, parts: dict[str, str], code: str, sentence: str
) -> None:
    """What is wrong is said in one sentence, with the line where there is one."""
    error = refusal(write_recipe(**parts))
    assert error.code == code
    assert sentence in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    "forward",
    [
        "return self.linear(x) + x.new_zeros(2, 4)",
        "return self.linear(x) if x.shape[0] == 2 else x",
        "return self.linear(x).view(2, -1)",
    ],
)
def test_a_model_that_fixes_its_batch_is_refused(write_recipe: Write, forward: str) -> None:
    """The error names the axis, the size it is fixed to, and the line that fixes it."""
    error = refusal(write_recipe(forward=forward))
    assert error.code == "model.specialised"
    assert "axis 0 ('batch') of input 'x'" in error.message
    assert "fixes it to 2" in error.message
    assert f"recipe.py:15: {forward}" in error.message


def test_a_model_that_fixes_another_axis_is_refused(write_recipe: Write) -> None:
    """Any named axis is dynamic, and is guarded the same way, also by position."""
    error = refusal(
        write_recipe(
            forward="return x.unsqueeze(2) + x.new_zeros(8, 1)",
            inputs='[TensorSpec(name="words.in", datatype="FP32", shape=("batch", "length"))]',
            sample='yield {"words.in": np.ones((1, 8), np.float32)}',
        )
    )
    assert error.code == "model.specialised"
    assert "axis 1 ('length') of input 'words.in'" in error.message


def test_a_branch_on_values_is_refused(write_recipe: Write) -> None:
    """A Python branch on a tensor's values is named, with the line."""
    error = refusal(write_recipe(forward="return x if x.sum() > 0 else -x"))
    assert error.code == "model.data-dependent"
    assert "recipe.py:15: return x if x.sum() > 0 else -x" in error.message
    assert "torch.where" in error.hint


def test_what_torch_cannot_capture_is_refused(write_recipe: Write) -> None:
    """A detour through NumPy is named by torch's message and the line; the cause is chained."""
    error = refusal(write_recipe(forward="return torch.from_numpy(np.sin(x.numpy()))"))
    assert error.code == "model.export"
    assert ".numpy() is not supported" in error.message
    assert "recipe.py:15: return torch.from_numpy" in error.message
    assert isinstance(error.__cause__, RuntimeError)


def test_inputs_are_bound_by_name(write_recipe: Write) -> None:
    """Arguments of forward's names are bound by them, whatever order the recipe declares."""
    source = captured(
        write_recipe(
            arguments="a, b",
            forward="return a - b",
            inputs='[TensorSpec(name=n, datatype="FP32", shape=("batch", 8)) for n in "ba"]',
            sample='yield {n: np.full((1, 8), "ab".index(n), np.float32) for n in "ab"}',
        )
    )
    assert source.inputs == ("a", "b")
    assert source.outputs["output0"].tolist() == [[-1.0] * 8] * 2


class Pair(nn.Module):
    """Two inputs, one of which does not vary."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Their weighted sum."""
        return left * 2 + right


def test_a_program_is_captured(tmp_path: Path, write_recipe: Write) -> None:
    """A .pt2 file runs as its program, and its arguments may go by other names in the recipe."""
    example = (torch.ones(2, 8), torch.ones(2, 8))
    axes = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Pair(), example, dynamic_shapes=(axes, axes))
    torch.export.save(program, tmp_path / "pair.pt2")
    path = write_recipe(
        model='"pair.pt2"',
        inputs='[TensorSpec(name=n, datatype="FP32", shape=("batch", 8)) for n in ("p", "q")]',
        sample='yield {"p": np.ones((1, 8), np.float32), "q": np.zeros((1, 8), np.float32)}',
    )
    source = captured(path)
    assert (source.reference, source.inputs) == ("program", ("p", "q"))
    assert source.outputs["output0"].tolist() == [[2.0] * 8] * 2
    path = write_recipe(model='"pair.pt2"')
    assert refusal(path).code == "recipe.inputs"


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_a_model_file_must_be_there_and_whole(
    tmp_path: Path, write_recipe: Write, suffix: str
) -> None:
    """A missing and a broken file are refused by name."""
    path = write_recipe(model=f'"net.{suffix}"')
    assert "there is no model" in refusal(path).message
    (tmp_path / f"net.{suffix}").write_bytes(b"\xff" * 9)
    error = refusal(path)
    assert error.code == "model.file"
    assert f"net.{suffix} cannot be read" in error.message
