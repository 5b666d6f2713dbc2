"""torch's antialiased interpolation on uint8, which is what torchvision's Resize calls."""

# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

from typing import TYPE_CHECKING

from headrace_bench.peers import CROP, MEAN, STD, geometry, kernel_workload

if TYPE_CHECKING:
    from headrace_bench.measure import Workload
    from headrace_bench.peers import Floats, Pixels

NAME = "torch-resize"
SUITES = ("kernels",)
REQUIREMENTS = ("numpy==2.4.6", "simplejpeg==1.9.0", "torch==2.13.0")
"""torch reads no files; simplejpeg is the quickest decoder beside it."""
TOLERANCE = 1.5
"""It rounds to a byte after each of its two passes, and its weights are 16-bit integers."""


def open_kernel(*, image: str, expected: str, threads: int, batch: int) -> "Workload":
    """Its own threads resize one image; the images of a batch are shared out instead."""
    import simplejpeg
    import torch

    torch.set_num_threads(threads if batch == 1 else 1)
    scale = (1 / (255 * torch.tensor(STD, dtype=torch.float64))).float().reshape(3, 1, 1)
    shift = (torch.tensor(MEAN) / torch.tensor(STD)).reshape(3, 1, 1)

    def prepare(pixels: "Pixels", out: "Floats") -> None:
        height, width, top, left = geometry(pixels)
        with torch.inference_mode():
            resized = torch.nn.functional.interpolate(
                torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0),
                size=(height, width),
                mode="bilinear",
                antialias=True,
            )
            crop = resized[0, :, top : top + CROP, left : left + CROP]
            torch.mul(crop, scale, out=torch.from_numpy(out)).sub_(shift)

    def decode(file: bytes) -> "Pixels":
        pixels: Pixels = simplejpeg.decode_jpeg(file, "RGB")
        return pixels

    return kernel_workload(
        prepare,
        decode,
        image=image,
        expected=expected,
        threads=threads,
        batch=batch,
        tolerance=TOLERANCE,
    )
