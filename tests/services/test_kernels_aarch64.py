"""The libraries for aarch64, opened and called by the runtime as on such a processor.

A Python for aarch64 runs under qemu. There the runtime opens bundles, chooses their library by what
the processor has, and sends golden cases through it.
"""

import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import stage_answers
from bundles import parts
from safetensors.numpy import load_file
from stage_cases import SPECS, model_outputs, raw_rows

from headrace.bundle.digest import hash_bytes
from headrace.bundle.golden import GoldenCase, encode_cases
from headrace.bundle.manifest import KERNELS, KernelEntry, Manifest
from headrace.bundle.open import Bundle, open_bundle
from headrace.bundle.write import write_bundle
from headrace.engine.stages import Stage, Stages
from headrace.postprocess.reference import postprocess
from headrace.preprocess.reference import open_reference
from headrace.preprocess.table.spec import TablePreprocessing
from headrace.tensors import BATCH, Array, TensorSpec
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs

ROOT = Path(__file__).parents[2]
AARCH64 = ROOT / ".venv" / "aarch64"
STAGES = [
    *((name, "prepare") for name in SPECS),
    *((name, "finish") for name, specs in SPECS.items() if specs.postprocessing is not None),
]
Answers = Mapping[str, Array]


def write(folder: Path, name: str, specs: Specs) -> Bundle:
    """A bundle with a library for each target, and a graph that nobody opens."""
    prepare, finish = specs.preprocessing, specs.postprocessing
    outputs = model_outputs(finish) or [{"y": np.zeros((1, 1), np.float32)}]
    golden = encode_cases(
        [
            *(GoldenCase(raw=row, inputs={}, outputs={}) for row in raw_rows(prepare)),
            *(GoldenCase(raw={}, inputs={}, outputs=each) for each in outputs),
        ]
    )
    libraries = compile_kernels(specs)
    files, fields = parts(b"no graph", golden)
    files |= {f"{KERNELS}{target}.so": library for target, library in libraries.items()}
    manifest = Manifest.model_validate(
        {
            **fields,
            "schema_version": 2,
            "name": name,
            "inputs": () if prepare is None else prepare.makes,
            "outputs": tuple(
                TensorSpec(name=key, datatype="FP32", shape=(BATCH, *array.shape[1:]))
                for key, array in outputs[-1].items()
            ),
            "preprocessing": prepare,
            "postprocessing": finish,
            "kernels": tuple(
                KernelEntry(target=target, path=f"{KERNELS}{target}.so") for target in libraries
            ),
            "files": {path: hash_bytes(content) for path, content in files.items()},
        }
    )
    path, _ = write_bundle(folder, manifest, files)
    return open_bundle(path)


def reference(bundle: Bundle) -> Stages:
    """The stages of a bundle in NumPy."""
    before, after = bundle.manifest.preprocessing, bundle.manifest.postprocessing
    prepare = finish = None
    if before is not None:
        prepare = Stage(open_reference(before, bundle.read_content), native=False)
    if after is not None:
        finish = Stage(partial(postprocess, after), native=False)
    return Stages(prepare, finish)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a bundle of each of the specs lies."""
    made = tmp_path_factory.mktemp("bundles")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(write, made), SPECS.keys(), SPECS.values()))
    return made


@pytest.fixture(scope="module")
def wanted(folder: Path) -> Answers:
    """What the reference answers on this machine."""
    bundles = [open_bundle(path) for path in folder.iterdir()]
    answers = [stage_answers.stage_answers(bundle, reference(bundle)) for bundle in bundles]
    return {key: array for each in answers for key, array in each.items()}


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What the libraries answer where the runtime finds itself on aarch64."""
    emulator, root = shutil.which("qemu-aarch64"), AARCH64 / "root"
    assert emulator, "tests/services/install.sh installs it"
    answers = tmp_path_factory.mktemp("answers") / "answers.safetensors"
    done = subprocess.run(
        [
            *(emulator, "-L", str(root), str(root / "usr" / "bin" / "python3"), "-S"),
            *(stage_answers.__file__, str(folder), str(answers)),
        ],
        env={"PYTHONPATH": f"{ROOT / 'runtime'}:{AARCH64 / 'site'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("aarch64", "")
    return load_file(answers)


def allowed(name: str, stage: str, wanted: Array) -> npt.NDArray[np.float64]:
    """How far a library's numbers may lie from the reference's.

    Features of tables are equal. Others are to 1e-6: prepared tensors of their range, answers of
    themselves. What is rounded to fewer bits may be off by one unit, where the value lay in the
    middle; so may the tiniest float32 be.
    """
    sizes = np.abs(wanted.astype(np.float64))
    limits = np.zeros_like(sizes)
    if stage == "finish":
        limits += 1e-6 * sizes + 2 * np.finfo(np.float32).smallest_subnormal
    elif not isinstance(SPECS[name].preprocessing, TablePreprocessing):
        limits += 2e-6 * sizes.max(initial=0.5)  # ranges reach as far below zero as above
        if wanted.dtype == np.float16:
            limits += np.abs(np.spacing(np.asarray(wanted, np.float16)))
        elif wanted.dtype == np.uint8:
            limits += 1
    return limits


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_libraries_for_aarch64_compute_what_the_reference_does(
    found: Answers, wanted: Answers, name: str, stage: str
) -> None:
    """To 1e-6, row by row and in a batch; emulated, and thus not timed."""
    keys = {key for key in wanted if key.startswith(f"{name}/{stage}/")}
    assert keys == {key for key in found if key.startswith(f"{name}/{stage}/")}
    assert keys
    for key in keys:
        one, other = found[key], wanted[key]
        assert (one.dtype, one.shape) == (other.dtype, other.shape), key
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
        assert (apart <= allowed(name, stage, other)).all(), key


def test_what_is_refused_here_is_refused_there(found: Answers, wanted: Answers) -> None:
    """For the same reason, of the same row: broken rows of tables, and NaN from a model."""
    refused = {key: array.tobytes() for key, array in wanted.items() if key.endswith("/refused")}
    assert refused == {key: found[key].tobytes() for key in found if key.endswith("/refused")}
    assert {key.split("/")[0] for key in refused} == {*SPECS}
    rows = sum(key.startswith("strict/prepare/") for key in wanted)
    assert 1 < sum(key.startswith("strict/prepare/") for key in refused) < rows
