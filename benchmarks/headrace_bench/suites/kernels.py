"""The suite `kernels`: images to tensors, with and without decoding, by headrace and its peers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from headrace.errors import UsageError
from headrace.hardware import detect_hardware, installed_version
from headrace.native import TARGETS, choose_target
from headrace.preprocess.image.decode import Pixels, decode_image
from headrace.preprocess.image.reference import prepare_image
from headrace_bench.contest import Contest
from headrace_bench.own_kernel import SPEC
from headrace_bench.peers import JPEG
from headrace_bench.peers.environments import (
    Peer,
    PeerEnvironment,
    inspect_environment,
    select_peers,
)
from headrace_bench.process import Contestant
from headrace_bench.suites.options import SuiteOptions
from headrace_compiler.kernels.lower import compile_kernels
from headrace_compiler.kernels.sources import Specs

SUITE = "kernels"
QUALITY = 90
"""Of the JPEG files; cameras save with about as much."""


@dataclass(frozen=True)
class Size:
    """A case's work.

    Attributes:
        height: Of each image, in pixels.
        width: Of each image, in pixels.
        batch: Images in one operation.
        encoded: Whether they come as JPEG files.
    """

    name: str
    height: int
    width: int
    batch: int
    threads: int
    encoded: bool = False


SIZES = tuple(
    Size(
        f"{name}{'-jpeg' if encoded else ''}-t{threads}",
        height,
        width,
        batch,
        threads,
        encoded,
    )
    for encoded in (False, True)
    for name, height, width, batch in (
        ("1280x720", 720, 1280, 1),
        ("4000x3000", 3000, 4000, 1),
        ("1280x720-b32", 720, 1280, 32),
    )
    for threads in (1, 2)
)
_QUICK = SIZES[:1]


def contests(options: SuiteOptions) -> list[Contest]:
    """A contest for each size, on the same image for all contestants."""
    peers = [
        (peer, inspect_environment(peer, options.home))
        for peer in select_peers(SUITE, options.peers)
    ]
    return [_contest(options.scratch, size, peers) for size in (_QUICK if options.quick else SIZES)]


def make_image(height: int, width: int) -> Pixels:
    """An image of slow waves and of a texture finer than two pixels of the resized image.

    A crop that is off by a pixel shows in the waves; a resize that does not antialias, in the
    texture.
    """
    y = np.linspace(0, 2 * np.pi, height, dtype=np.float32)[:, np.newaxis, np.newaxis]
    x = np.linspace(0, 2 * np.pi, width, dtype=np.float32)[np.newaxis, :, np.newaxis]
    colour = np.arange(3, dtype=np.float32)
    waves = 50 * np.sin((9 + colour) * y + 1) + 50 * np.sin((13 - colour) * x + colour)
    texture = 8 * np.sin(2.5 * np.arange(height))[:, np.newaxis] * np.sin(2.3 * np.arange(width))
    pixels: Pixels = (127.5 + waves + texture[:, :, np.newaxis]).round().astype(np.uint8)
    return pixels


def _contest(scratch: Path, size: Size, peers: list[tuple[Peer, PeerEnvironment]]) -> Contest:
    arguments = {**kernel_files(scratch, size), "threads": size.threads, "batch": size.batch}
    own = Contestant(
        name="headrace",
        factory="headrace_bench.own_kernel:open_kernel",
        arguments={**arguments, "library": str(kernel_library(scratch))},
        versions=_own_versions(),
    )
    floor = Contestant(
        name="copy",
        factory="headrace_bench.own_kernel:open_copy",
        arguments=arguments,
        versions=_own_versions(),
    )
    others = [
        Contestant(
            name=peer.name,
            factory=f"{peer.module}:open_kernel",
            arguments=arguments,
            python=found.python,
            environment=peer.environment,
            missing=found.missing,
            versions=found.versions,
        )
        for peer, found in peers
    ]
    return Contest(
        suite=SUITE,
        case=size.name,
        contestants=(own, *others) if size.encoded else (own, floor, *others),
        parameters={
            "height": size.height,
            "width": size.width,
            "batch": size.batch,
            "threads": size.threads,
        },
    )


def kernel_files(scratch: Path, size: Size) -> Mapping[str, str]:
    """The image of a size and what is to come out of it; made by the first case that asks."""
    image = scratch / f"kernels-{size.width}x{size.height}{JPEG if size.encoded else '.npy'}"
    expected = image.with_name(f"{image.name}.expected.npy")
    if not expected.exists():
        pixels = make_image(size.height, size.width)
        if size.encoded:
            image.write_bytes(simplejpeg.encode_jpeg(pixels, QUALITY, colorsubsampling="420"))
            pixels = decode_image(image.read_bytes(), pixels.size)
        else:
            np.save(image, pixels)
        np.save(expected, prepare_image(pixels, SPEC))
    return {"image": str(image), "expected": str(expected)}


def kernel_library(scratch: Path) -> Path:
    """The native library for this machine, as the compiler makes it for a bundle.

    Raises:
        UsageError: There is none for this processor.
    """
    target = choose_target([each.name for each in TARGETS], detect_hardware())
    if target is None:
        raise UsageError("bench.no-kernel", "there is no native library for this processor")
    path = scratch / f"kernels-{target}.so"
    if not path.exists():
        path.write_bytes(compile_kernels(Specs(preprocessing=SPEC))[target])
    return path


def _own_versions() -> dict[str, str]:
    names = ("headrace", "llvmlite", "numba", "numpy", "simplejpeg")
    return {name: found for name in names if (found := installed_version(name))}
