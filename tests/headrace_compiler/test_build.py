"""Building bundles from end to end."""

import _thread
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from headrace.bundle.manifest import BUILD_RECORD, MANIFEST, Manifest
from headrace.bundle.open import open_bundle
from headrace.errors import CheckError, MissingError, UsageError
from headrace.hardware import detect_hardware
from headrace_compiler.build import Built, Silent, StepRecord
from headrace_compiler.build import build as build_recipe

Write = Callable[..., Path]
STEPS = (
    *("samples", "capture", "export", "simplify", "reference", "parity", "golden"),
    *("prove", "sketch", "package"),
)
MADE = ("samples", "capture", "export", "simplify", "golden", "sketch", "package")
build = partial(build_recipe, measure="none")
ELSEWHERE = """
import sys
from pathlib import Path
from headrace_compiler.build import build
print(build(Path(sys.argv[1]), out=Path(sys.argv[2]), measure="none").digest)
"""


def manifest(built: Built) -> Manifest:
    """The manifest of a bundle, which accepts no unknown keys."""
    return Manifest.model_validate_json((built.path / MANIFEST).read_bytes())


def test_equal_recipes_give_equal_bundles(tmp_path: Path, write_recipe: Write) -> None:
    """Two builds, in two processes and two directories, give the same digest."""
    built = build(write_recipe(tmp_path / "here"), out=tmp_path / "out")
    other = write_recipe(tmp_path / "further" / "away")
    found = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, other.name, "."],
        check=True,
        capture_output=True,
        cwd=other.parent,
        text=True,
    )
    assert found.stdout.strip() == built.digest
    assert found.stderr == ""
    assert (other.parent / "tiny-1.0.bundle" / MANIFEST).is_file()


def test_another_seed_gives_another_bundle(tmp_path: Path, write_recipe: Write) -> None:
    """The digest follows what the recipe says."""
    digests = {
        build(write_recipe(more=more), out=tmp_path / "out", replace=True).digest
        for more in ("", "seed=1,")
    }
    assert len(digests) == 2


def test_the_manifest_tells_what_was_built(tmp_path: Path, write_recipe: Write) -> None:
    """Tensors, parity and lineage are recorded, and so are the steps with their times."""
    told: list[str] = []

    class Ear(Silent):
        def started(self, step: str) -> None:
            told.append(step)

        def finished(self, step: StepRecord) -> None:
            assert step.seconds >= 0
            assert told[-1] == step.name
            assert not step.cached

    built = build(write_recipe(more="outputs=('y',),"), out=tmp_path, progress=Ear())
    found = manifest(built)
    assert built.path == tmp_path / "tiny-1.0.bundle"
    assert tuple(told) == tuple(record.name for record in built.steps) == STEPS
    assert found.lineage.steps == MADE
    assert found.lineage.target == "cpu"
    assert found.parity[0].batch_sizes == (1, 2, 3, 7)
    assert found.batched
    text = (built.path / MANIFEST).read_text()
    assert str(tmp_path) not in text


def test_the_build_record_is_no_content(tmp_path: Path, write_recipe: Write) -> None:
    """Where and how fast a bundle was built lies beside its content, and changes no digest."""
    built = build(write_recipe(), out=tmp_path)
    bundle = open_bundle(built.path)
    record = bundle.build_record()
    assert record is not None
    assert record.fingerprint == detect_hardware().fingerprint
    assert tuple(record.seconds) == STEPS[:-1]
    (built.path / BUILD_RECORD).unlink()
    assert open_bundle(built.path).digest == bundle.digest == built.digest


def test_onnxruntime_opens_a_bundle_by_itself(tmp_path: Path, write_recipe: Write) -> None:
    """A bundle is an ONNX Runtime model package: its own loader picks the variant and runs it."""
    built = build(write_recipe(more="outputs=('y',),"), out=tmp_path)
    context = onnxruntime.ModelPackageContext(str(built.path))
    options = onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    session = context.select_component("model", options).create_session()
    answer = session.run(["y"], {"x": np.ones((3, 8), np.float32)})
    assert answer[0].shape == (3, 4)


def test_several_inputs_and_outputs(tmp_path: Path, write_recipe: Write) -> None:
    """Integer and real inputs, a dictionary of outputs, and two dynamic axes."""
    path = write_recipe(
        arguments="ids, mask",
        forward="return {'sum': (ids * mask).sum(1), 'mean': self.linear(mask[:, :8].float())}",
        inputs='[TensorSpec(name=n, datatype="INT64", shape=("batch", "length"))'
        ' for n in ("mask", "ids")]',
        sample='yield {n: generator.integers(0, 9, (1, 9 + _)) for n in ("ids", "mask")}',
    )
    found = manifest(build(path, out=tmp_path))
    assert [spec.name for spec in found.inputs] == ["mask", "ids"]
    assert [(spec.name, spec.datatype, spec.shape) for spec in found.outputs] == [
        ("sum", "INT64", ("batch",)),
        ("mean", "FP32", ("batch", 4)),
    ]


def test_a_program_and_a_graph_are_built_too(tmp_path: Path, write_recipe: Write) -> None:
    """A .pt2 file and the .onnx file that the first bundle holds are compiled and proven."""
    axes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(nn.Linear(8, 4), (torch.ones(2, 8),), dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "net.pt2")
    first = build(write_recipe(model='"net.pt2"', more="outputs=('y',),"), out=tmp_path / "a")
    assert manifest(first).parity[0].reference == "program"
    content = (first.path / manifest(first).variants[0].path).read_bytes()
    (tmp_path / "net.onnx").write_bytes(content)
    second = build(write_recipe(model='"net.onnx"'), out=tmp_path / "b")
    assert manifest(second).parity[0].reference == "graph"
    assert manifest(second).outputs == manifest(first).outputs


def test_a_failed_step_is_named_with_those_before_it(tmp_path: Path, write_recipe: Write) -> None:
    """The error keeps its class and code, its cause is chained, and nothing is written."""
    out = tmp_path / "out"
    forward = "y = self.linear(x); return y if x.shape[0] % 2 == 0 else y * 3"
    with pytest.raises(CheckError) as caught:
        build(write_recipe(forward=forward), out=out)
    start = "step parity (after samples, capture, export, simplify, reference): the graph"
    assert caught.value.message.startswith(start)
    assert caught.value.code == "parity.failed"
    assert isinstance(caught.value.__cause__, CheckError)
    assert not out.exists()


def test_a_bundle_is_replaced_only_on_demand(tmp_path: Path, write_recipe: Write) -> None:
    """A bundle of the same name stays as it is, unless it is to be replaced."""
    path = write_recipe()
    first = build(path, out=tmp_path)
    with pytest.raises(UsageError) as caught:
        build(path, out=tmp_path)
    assert caught.value.code == "bundle.exists"
    assert build(path, out=tmp_path, replace=True).digest == first.digest


def test_an_unknown_target_is_refused(tmp_path: Path, write_recipe: Write) -> None:
    """The error names the targets that there are."""
    with pytest.raises(UsageError) as caught:
        build(write_recipe(), target="abacus", out=tmp_path)
    assert caught.value.code == "build.target"
    assert "cpu" in caught.value.hint


@pytest.mark.parametrize("wanted", STEPS)
def test_an_interrupt_leaves_nothing(tmp_path: Path, write_recipe: Write, wanted: str) -> None:
    """Ctrl-C at any step leaves the directory as it was."""

    class Interrupt(Silent):
        def started(self, step: str) -> None:
            if step == wanted:
                # As if SIGINT had come. A real one would be handled on the small stack that
                # pytest's faulthandler sets up, and a processor's registers may not fit there.
                _thread.interrupt_main()

    path = write_recipe(tmp_path / "recipe")
    with pytest.raises(KeyboardInterrupt):
        build(path, out=tmp_path / "out", progress=Interrupt())
    assert not (tmp_path / "out").exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["recipe.py"]


FULL = """
import resource, signal, sys
from pathlib import Path
from headrace.errors import MissingError
from headrace_compiler.build import build
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
try:
    build(Path(sys.argv[1]), out=Path(sys.argv[2]), replace=True, measure="none")
except MissingError as error:
    print(error.code, type(error.__cause__).__name__)
"""


def test_a_full_disk_leaves_nothing(tmp_path: Path, write_recipe: Write) -> None:
    """Where a file cannot be written whole, the old bundle stays and nothing new is left."""
    path = write_recipe()
    built = build(path, out=tmp_path / "out")
    before = (built.path / MANIFEST).read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(tmp_path / "out")],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stdout.split() == ["build.write", "OSError"], done.stderr
    assert (built.path / MANIFEST).read_bytes() == before
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [built.path.name]


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path, write_recipe: Write) -> None:
    """Building into a file is an error of the machine, not a traceback."""
    (tmp_path / "out").write_text("")
    with pytest.raises(MissingError) as caught:
        build(write_recipe(), out=tmp_path / "out")
    assert caught.value.code == "build.write"


def test_the_files_are_plain_json(tmp_path: Path, write_recipe: Write) -> None:
    """A bundle is readable without headrace."""
    built = build(write_recipe(), out=tmp_path)
    names = sorted(str(path.relative_to(built.path)) for path in built.path.rglob("*.json"))
    assert names == ["build.json", "headrace.json", "manifest.json", "model/component.json"]
    assert all(json.loads((built.path / name).read_text()) for name in names)
