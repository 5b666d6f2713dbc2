"""Bundles whose graphs prepare images themselves: `--fuse-preprocessing graph`."""

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from headrace.bundle.open import Bundle, open_bundle
from headrace.engine.model import Model, load_model
from headrace.errors import InvalidRequestError, TooLargeError, UsageError
from headrace.tensors import Array
from headrace_compiler.build import Built, Caching, build

RECIPE = """
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import nn

from headrace_compiler import *


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.second = nn.Conv2d(64, 64, 3, padding=1)
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.mean((2, 3)))


def draw(seed, count):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        height, width = generator.integers(30, 60, 2)
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        yield {"image": file.getvalue()}


recipe = Recipe(
    name="net",
    version="1",
    model=Net,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=("batch", 3, 24, 24))],
    outputs=("y",),
    preprocessing=PREPROCESSING,
    postprocessing=TopK(output="y", k=3),
    samples=lambda: draw(0, 4),
    calibration=lambda: draw(1, 16),
    evaluation=lambda: ((sample, None) for sample in draw(2, 32)),
    metric="cosine",
)
"""
PREPROCESSING = """ImagePreprocessing(
        input="image",
        output="x",
        decode=Decode(max_pixels=5000),
        resize=Letterbox(height=24, width=24, filter="bicubic"),
        normalize=Normalize(mean=(120, 115, 100), std=(60, 60, 60)),
    )"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with images."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.py"
    path.write_text(RECIPE.replace("PREPROCESSING,", f"{PREPROCESSING},"))
    return path


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory) -> Caching:
    """A cache that all builds of this module share."""
    return Caching(tmp_path_factory.mktemp("home") / "steps", 1 << 30)


@pytest.fixture(scope="module")
def built(recipe: Path, caching: Caching) -> Built:
    """With the preprocessing in the graph, and measured variants."""
    out = recipe.parent / "graph"
    return build(recipe, out=out, measure="quick", fuse="graph", caching=caching)


@pytest.fixture(scope="module")
def fused(built: Built) -> Bundle:
    """The bundle, opened."""
    return open_bundle(built.path)


@pytest.fixture(scope="module")
def model(fused: Bundle) -> Model:
    """Its fp32 graph, loaded, and so replayed."""
    return load_model(fused)


def pictures(height: int, width: int, rows: int = 1) -> npt.NDArray[np.uint8]:
    """Noise: uint8 (rows, height, width, 3)."""
    return np.random.default_rng(height).integers(0, 256, (rows, height, width, 3), np.uint8)


def scores(model: Model, images: Array) -> npt.NDArray[np.float64]:
    """Of the three likeliest classes of each image."""
    return model.answer({"image": images}).outputs["scores"].astype(np.float64)


def test_clients_send_decoded_images_of_any_size(fused: Bundle) -> None:
    """The manifest says so, and keeps what the graph does; no kernel prepares anything."""
    manifest = fused.manifest
    (taken,) = manifest.inputs
    assert (taken.name, taken.datatype) == ("image", "UINT8")
    assert taken.shape == ("batch", "height", "width", 3)
    assert manifest.preprocessing is None
    assert manifest.in_graph is not None
    assert manifest.in_graph.output == "x"
    assert "fuse-preprocessing" in manifest.lineage.steps
    for kernel in manifest.kernels:
        assert b"headrace_prepare" not in fused.read_content(kernel.path)


def test_the_graph_answers_as_the_kernels_do(
    recipe: Path, caching: Caching, model: Model, tmp_path: Path
) -> None:
    """Image by image, and two of one size in a batch."""
    plain = build(recipe, out=tmp_path, measure="none", caching=caching)
    native = load_model(open_bundle(plain.path))
    for height, width in ((50, 37), (24, 24), (1, 90), (71, 70)):
        images = pictures(height, width, 2)
        files = np.empty(2, object)
        for row, image in enumerate(images):
            file = BytesIO()
            Image.fromarray(image).save(file, "PNG")
            files[row] = file.getvalue()
        wanted, found = scores(native, files), scores(model, images)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_every_variant_holds_the_preprocessing(built: Built, fused: Bundle) -> None:
    """What was measured are these graphs; none computes pixels in less than float32."""
    measured = built.measurement
    assert measured is not None
    assert {each.arithmetic for each in measured.candidates} == {"fp32"}
    digests = {fused.manifest.files[each.path].sha256 for each in fused.manifest.variants}
    assert digests <= {each.graph for each in measured.candidates}
    image = pictures(33, 47)
    wanted = scores(load_model(fused), image)
    for variant in fused.manifest.variants:
        found = scores(load_model(fused, variant=variant), image)
        assert np.abs(found - wanted).max() < 0.1


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 0, 7, 3), InvalidRequestError),
        ((1, 7, 0, 3), InvalidRequestError),
        ((1, 1, 65_536, 3), TooLargeError),
        ((1, 100, 51, 3), TooLargeError),
    ],
)
def test_images_that_no_decoder_gives_are_refused(
    model: Model, shape: tuple[int, ...], kind: type[Exception]
) -> None:
    """An engine may read beyond an image without pixels; large ones take memory many times."""
    with pytest.raises(kind):
        model.answer({"image": np.zeros(shape, np.uint8)})


def test_targets_of_cuda_get_ptx_beside_the_libraries(
    recipe: Path, caching: Caching, tmp_path: Path
) -> None:
    """It is content; here, where there is no GPU, the bundle runs from its libraries."""
    made = build(recipe, out=tmp_path, target="cuda", measure="none", caching=caching)
    bundle = open_bundle(made.path)
    kernels = {entry.target: entry.path for entry in bundle.manifest.kernels}
    assert kernels["sm_75"] == "kernels/sm_75.ptx"
    assert b".visible .entry headrace_prepare_image(" in bundle.read_content(kernels["sm_75"])
    file = BytesIO()
    Image.fromarray(pictures(50, 37)[0]).save(file, "PNG")
    answer = load_model(bundle).answer({"image": np.array([file.getvalue()], dtype=object)})
    assert not answer.reference


def test_only_images_go_into_the_graph(tmp_path: Path) -> None:
    """Anything else is an error before the work begins."""
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE.replace("    preprocessing=PREPROCESSING,\n", ""))
    with pytest.raises(UsageError) as caught:
        build(path, out=tmp_path, fuse="graph")
    assert caught.value.code == "fuse.kind"


def test_a_selection_is_replayed_in_its_own_form(
    recipe: Path, caching: Caching, built: Built, tmp_path: Path
) -> None:
    """The same content again; and an error where the other form is asked for."""
    again = build(
        recipe, out=tmp_path, measure="quick", fuse="graph", replay=built.path, caching=caching
    )
    assert again.digest == built.digest
    with pytest.raises(UsageError, match="graph"):
        build(recipe, out=tmp_path / "other", replay=built.path, caching=caching)
