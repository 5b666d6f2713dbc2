"""The suite `kernels`: one image to one tensor, without decoding, by headrace and by its peers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.hardware import installed_version
from headrace.preprocess.decode import Pixels
from headrace.preprocess.reference import prepare_image
from headrace_bench.contest import Contest
from headrace_bench.own import SPEC
from headrace_bench.peers.environments import (
    Peer,
    PeerEnvironment,
    inspect_environment,
    select_peers,
)
from headrace_bench.process import Contestant
from headrace_bench.suites.options import SuiteOptions

SUITE = "kernels"


@dataclass(frozen=True)
class Size:
    """A case's work.

    Attributes:
        height: Of each image, in pixels.
        width: Of each image, in pixels.
        batch: Images in one operation.
    """

    name: str
    height: int
    width: int
    batch: int
    threads: int


SIZES = (
    Size("1280x720-t1", 720, 1280, 1, 1),
    Size("1280x720-t2", 720, 1280, 1, 2),
    Size("4000x3000-t1", 3000, 4000, 1, 1),
    Size("4000x3000-t2", 3000, 4000, 1, 2),
    Size("1280x720-b32-t1", 720, 1280, 32, 1),
    Size("1280x720-b32-t2", 720, 1280, 32, 2),
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
    arguments = {**_files(scratch, size), "threads": size.threads, "batch": size.batch}
    return Contest(
        suite=SUITE,
        case=size.name,
        contestants=(
            Contestant(
                name="headrace",
                factory="headrace_bench.own:open_kernel",
                arguments=arguments,
                versions=_own_versions(),
            ),
            *(
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
            ),
        ),
        parameters={
            "height": size.height,
            "width": size.width,
            "batch": size.batch,
            "threads": size.threads,
        },
    )


def _files(scratch: Path, size: Size) -> Mapping[str, str]:
    """The image of a size and what is to come out of it; made by the first case that asks."""
    image = scratch / f"kernels-{size.width}x{size.height}.npy"
    expected = image.with_suffix(".expected.npy")
    if not expected.exists():
        pixels = make_image(size.height, size.width)
        np.save(image, pixels)
        np.save(expected, prepare_image(pixels, SPEC))
    return {"image": str(image), "expected": str(expected)}


def _own_versions() -> dict[str, str]:
    names = ("headrace", "numpy")
    return {name: found for name in names if (found := installed_version(name))}
