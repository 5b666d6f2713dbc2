"""The main job on real weights and real photographs: every road gives what eager PyTorch gives."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
import tritonclient.grpc
import tritonclient.http
from services import HEADRACE, Service, environment, run, serving

from headrace.preprocess.image.reference import prepare
from headrace.preprocess.image.spec import ImagePreprocessing
from headrace_compiler.loading import importable, load_recipe

pytestmark = pytest.mark.ray
EXAMPLE = Path(__file__).parents[2] / "examples" / "image_classification"
PHOTOGRAPHS = tuple(files("skimage") / "data" / name for name in ("chelsea.png", "coffee.png"))
TopFive = tuple[list[list[int]], list[list[float]]]
MODEL = "efficientnet-lite0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's state lies."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def bundle(home: Path) -> Path:
    """The example, compiled by the program."""
    return Path(compile_example(EXAMPLE, home / "first", home)["path"])


@pytest.fixture(scope="module")
def eager() -> TopFive:
    """The five likeliest classes of each photograph and their probabilities, by eager PyTorch."""
    with importable(EXAMPLE):
        recipe = load_recipe(EXAMPLE / "recipe.py")
        assert callable(recipe.model)
        network = recipe.model()
    assert isinstance(network, torch.nn.Module)
    assert isinstance(recipe.preprocessing, ImagePreprocessing)
    images = prepare(recipe.preprocessing, [path.read_bytes() for path in PHOTOGRAPHS])
    with torch.inference_mode():
        scores = torch.softmax(network.eval()(torch.from_numpy(images)), dim=1)
    best = scores.topk(5)
    return best.indices.tolist(), best.values.tolist()


@pytest.fixture(scope="module")
def service(bundle: Path, home: Path) -> Iterator[Service]:
    """The bundle on Ray Serve."""
    with serving(home, str(bundle)) as running:
        yield running


def compile_example(folder: Path, out: Path, home: Path) -> dict[str, str]:
    """Compiles a copy of the example in float32; returns what the program says of it."""
    command = [str(HEADRACE), "compile", str(folder / "recipe.py"), "--out", str(out), "--json"]
    command += ["--measure", "none"]
    done = subprocess.run(command, env=environment(home), stdout=subprocess.PIPE, check=True)
    document: dict[str, str] = json.loads(done.stdout)
    return document


def expect(eager: TopFive, indices: npt.ArrayLike, scores: npt.ArrayLike) -> None:
    """Checks an answer against eager PyTorch's."""
    np.testing.assert_array_equal(indices, eager[0])
    np.testing.assert_allclose(np.asarray(scores), np.asarray(eager[1]), atol=1e-4)


def test_predict_agrees_with_eager_pytorch(bundle: Path, home: Path, eager: TopFive) -> None:
    """`headrace predict` on the photographs' files gives eager PyTorch's top five."""
    inputs = [part for path in PHOTOGRAPHS for part in ("--input", f"image={path}")]
    done = run(home, "predict", str(bundle), *inputs, "--json")
    outputs = json.loads(done.stdout)["outputs"]
    expect(eager, outputs["indices"], outputs["scores"])
    assert outputs["labels"][1][0] == "espresso"
    assert "cat" in outputs["labels"][0][0]


@pytest.mark.parametrize("transport", [tritonclient.http, tritonclient.grpc])
def test_a_service_agrees_with_eager_pytorch(
    service: Service,
    eager: TopFive,
    transport: ModuleType,
) -> None:
    """The stock client gets eager PyTorch's top five on Ray Serve, from bytes and from tensors."""
    http = transport is tritonclient.http
    address = service.url.removeprefix("http://") if http else service.grpc
    spec = load_recipe(EXAMPLE / "recipe.py").preprocessing
    assert isinstance(spec, ImagePreprocessing)
    contents = [path.read_bytes() for path in PHOTOGRAPHS]
    raw = transport.InferInput("image", [len(contents)], "BYTES")
    raw.set_data_from_numpy(np.array(contents, dtype=object))
    pixels = prepare(spec, contents)
    ready = transport.InferInput("pixels", list(pixels.shape), "FP32")
    ready.set_data_from_numpy(pixels)
    with transport.InferenceServerClient(address) as client:
        for tensor in (raw, ready):
            answer = client.infer(MODEL, [tensor])
            expect(eager, answer.as_numpy("indices"), answer.as_numpy("scores"))


def test_another_directory_gives_the_same_digest(bundle: Path, home: Path) -> None:
    """The example compiled from a copy elsewhere, into another directory, has the same digest."""
    copy = home / "copy"
    shutil.copytree(EXAMPLE, copy)
    again = compile_example(copy, home / "second", home)
    compared = run(home, "diff", str(bundle), again["path"], "--json")
    assert json.loads(compared.stdout)["changes"] == {}
    assert compared.returncode == 0
