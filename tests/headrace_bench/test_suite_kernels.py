"""The suite `kernels`: everybody does the same work, and whoever does other work is refused."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headrace.hardware import detect_hardware
from headrace.preprocess.image.decode import Pixels
from headrace.preprocess.image.reference import Floats, prepare_image
from headrace_bench.contest import Contest, Effort, run_contest
from headrace_bench.own_kernel import SPEC, open_kernel
from headrace_bench.peers import CROP, Prepare, geometry, kernel_workload, normalizer
from headrace_bench.peers.environments import inspect_environment, select_peers
from headrace_bench.process import Contestant
from headrace_bench.result import CaseResult
from headrace_bench.suites import kernels
from headrace_bench.suites.options import SuiteOptions

HERE = ("pillow", "torch-resize")
"""Peers whose packages headrace's own environment has too."""
BRIEF = Effort(rounds=1, block_s=0.01, warm_s=0.01, allow_load=True)
SIZE = kernels.Size("small", 300, 400, 3, 2)


def options(directory: Path, *peers: str) -> SuiteOptions:
    """A home without peers."""
    return SuiteOptions(
        bundle=None, scratch=directory, home=directory / "home", quick=True, peers=peers
    )


def here(contestant: Contestant) -> Contestant:
    """A contestant in headrace's own environment, where that has what it needs."""
    if contestant.name not in HERE:
        return contestant
    return replace(contestant, python=Path(sys.executable), missing="")


def run(contest: Contest) -> dict[str, CaseResult]:
    """The results by contestant, as short as can be."""
    results = run_contest(contest, BRIEF, detect_hardware())
    return {result.contestant: result for result in results}


def test_peers_agree_and_missing_ones_say_so(tmp_path: Path) -> None:
    """Whoever is installed answers as the reference does and is measured; others are missing."""
    (contest,) = kernels.contests(options(tmp_path, "opencv", *HERE))
    assert contest.case == "1280x720-t1"
    results = run(replace(contest, contestants=tuple(map(here, contest.contestants))))
    assert list(results) == ["headrace", "copy", "pillow", "opencv", "torch-resize"]
    for name in ("headrace", "copy", *HERE):
        assert results[name].status == "ok", results[name].reason
        assert results[name].metric("latency_p50") is not None
    assert results["opencv"].status == "missing"
    assert "headrace bench peers install opencv" in results["opencv"].reason
    assert {"headrace", "numpy"} <= results["headrace"].versions.keys()


@pytest.mark.parametrize("encoded", [False, True])
def test_batches_are_shared_out_among_threads(tmp_path: Path, *, encoded: bool) -> None:
    """Every image of a batch is prepared, decoded before if it is a file, on the threads there."""
    peers = [(peer, inspect_environment(peer, tmp_path)) for peer in select_peers("kernels", HERE)]
    contest = kernels._contest(tmp_path, replace(SIZE, encoded=encoded), peers)
    results = run(replace(contest, contestants=tuple(map(here, contest.contestants))))
    assert {name: each.reason for name, each in results.items() if each.status != "ok"} == {}
    assert results["pillow"].parameters["batch"] == 3


def test_wrong_answer_fails_with_a_sentence(tmp_path: Path) -> None:
    """A contestant that gives something else than the reference is not measured."""
    (contest,) = kernels.contests(options(tmp_path, "pillow"))
    expected = Path(str(contest.contestants[0].arguments["expected"]))
    np.save(expected, np.load(expected)[:, ::-1])
    results = run(replace(contest, contestants=tuple(map(here, contest.contestants))))
    assert results.pop("copy").status == "ok"  # it answers nothing
    for result in results.values():
        assert (result.status, result.metrics) == ("failed", ())
        assert "/255 from the reference, and may be off by" in result.reason


def test_sizes_are_run_with_and_without_threads() -> None:
    """The full suite has two sizes and a batch, as pixels and as files, on one and two threads."""
    cases = {size.name: size for size in kernels.SIZES}
    sizes = [
        f"{size}{kind}"
        for size in ("1280x720", "4000x3000", "1280x720-b32")
        for kind in ("", "-jpeg")
    ]
    assert set(cases) == {f"{size}-t{threads}" for size in sizes for threads in (1, 2)}
    assert cases["4000x3000-jpeg-t1"] == kernels.Size(
        "4000x3000-jpeg-t1", 3000, 4000, 1, 1, encoded=True
    )
    assert cases["4000x3000-t2"] == kernels.Size("4000x3000-t2", 3000, 4000, 1, 2)
    assert cases["1280x720-b32-t1"] == kernels.Size("1280x720-b32-t1", 720, 1280, 32, 1)


def unused(_: bytes) -> Pixels:
    """A decoder where nothing is encoded."""
    raise AssertionError


def skewed(top: int, left: int, resampling: Image.Resampling) -> Prepare:
    """Pillow's preparation with another crop or another filter."""
    normalize = normalizer()

    def prepare(pixels: Pixels, out: Floats) -> None:
        height, width, *corner = geometry(pixels)
        y, x = corner[0] + top, corner[1] + left
        resized = Image.fromarray(pixels).resize((width, height), resampling)
        normalize(np.asarray(resized)[y : y + CROP, x : x + CROP], out)

    return prepare


@pytest.mark.parametrize(
    ("prepare", "wrong"),
    [
        (skewed(0, 0, Image.Resampling.BILINEAR), False),
        (skewed(1, 0, Image.Resampling.BILINEAR), True),
        (skewed(0, 1, Image.Resampling.BILINEAR), True),
        (skewed(0, 0, Image.Resampling.NEAREST), True),
    ],
)
def test_image_shows_a_wrong_crop_and_a_wrong_filter(
    tmp_path: Path, prepare: Prepare, *, wrong: bool
) -> None:
    """A crop that is off by a pixel, or a resize that does not antialias, is found out."""
    files = kernels.kernel_files(tmp_path, replace(SIZE, height=720, width=1280))

    def make() -> None:
        kernel_workload(prepare, unused, **files, threads=1, batch=1, tolerance=1.5)

    if wrong:
        with pytest.raises(SystemExit, match="a pixel is off by"):
            make()
    else:
        make()


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (400, 300)])
def test_reference_is_what_torch_computes_in_float32(height: int, width: int) -> None:
    """The expected tensor is torch's antialiased resize in float32, cropped and normalised."""
    image = kernels.make_image(height, width)
    resized_height, resized_width, top, left = geometry(image)
    assert min(resized_height, resized_width) == 256
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        size=(resized_height, resized_width),
        mode="bilinear",
        antialias=True,
    )[0, :, top : top + CROP, left : left + CROP]
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    expected = ((resized / 255 - mean) / std).numpy()
    np.testing.assert_allclose(prepare_image(image, SPEC).astype(np.float32), expected, atol=1e-4)


def test_headrace_prepares_every_row(tmp_path: Path) -> None:
    """The contestant of headrace itself works on the whole batch, and counts its rows."""
    library = str(kernels.kernel_library(tmp_path))
    workload = open_kernel(
        **kernels.kernel_files(tmp_path, SIZE), threads=2, batch=3, library=library
    )
    block = workload.block(0.0, 1)
    assert (block.rows, block.errors) == (3, 0)
    assert workload.facts()["memory_mb"] > 0
    workload.close()
