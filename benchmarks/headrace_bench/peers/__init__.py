"""The peers: one small file each, each in an environment of its own.

What those of the suites `kernels` and `compile` share stands here. It runs in their environments
too, and so imports NumPy inside functions and nothing else that is not in the standard library.
"""

# ruff: noqa: PLC0415 - a peer's file is also read where its packages are not installed

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace_bench.measure import Repeated

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]
    Array = npt.NDArray[np.generic]
    Arrays = Mapping[str, Array]

SHORTER, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, on the scale 0..1."""

Prepare = Callable[["Pixels", "Floats"], object]
"""Prepares one image, uint8 (height, width, 3), into a float32 (3, 224, 224)."""
Decode = Callable[[bytes], "Pixels"]
"""Decodes a JPEG to uint8 (height, width, 3), red, green, blue."""
JPEG = ".jpg"
DECODED = 1.0
"""How far two decoders may be apart, in units of 1/255: they round differently."""
Load = Callable[["Arrays", Sequence[str]], Callable[[], Sequence["Array"]]]
"""Loads a model for these inputs; what it returns runs it, and gives the outputs of these names."""


def geometry(image: "Pixels") -> tuple[int, int, int, int]:
    """The height and width after the resize, and the top and left of the crop in it."""
    height, width, _ = image.shape
    short, long = sorted((height, width))
    longer = (2 * long * SHORTER + short) // (2 * short)
    resized = (SHORTER, longer) if height <= width else (longer, SHORTER)
    return (*resized, (resized[0] - CROP) // 2, (resized[1] - CROP) // 2)


def normalizer() -> Callable[["Pixels", "Floats"], None]:
    """What writes a crop, uint8 (224, 224, 3), normalised into a float32 (3, 224, 224)."""
    import numpy as np

    scale = (1 / (255 * np.array(STD))).astype(np.float32).reshape(3, 1, 1)
    shift = (np.array(MEAN) / np.array(STD)).astype(np.float32).reshape(3, 1, 1)

    def normalize(crop: "Pixels", out: "Floats") -> None:
        np.multiply(crop.transpose(2, 0, 1), scale, out=out)
        np.subtract(out, shift, out=out)

    return normalize


def kernel_workload(
    prepare: Prepare,
    decode: Decode,
    *,
    image: str,
    expected: str,
    threads: int,
    batch: int,
    tolerance: float,
) -> Repeated:
    """Preprocessing of a batch, each image in memory of its own; checked before it is measured.

    Args:
        prepare: Of one image; called from `threads` threads at once where there is a batch.
        decode: Of one image, called before it where the image is a file.
        image: A .npy of uint8, shape (height, width, 3), or a .jpg.
        expected: A .npy of float32, shape (3, 224, 224).
        tolerance: How far any value may lie from what is expected, in units of 1/255; where
            the image is decoded, `DECODED` more.

    Raises:
        SystemExit: The answer is wrong.
    """
    if image.endswith(JPEG):
        content = Path(image).read_bytes()

        def decoded(file: bytes, out: "Floats") -> None:
            prepare(decode(file), out)

        files = [content] * batch
        return _checked(decoded, files, expected, threads, tolerance + DECODED)
    import numpy as np

    pixels = np.load(image, allow_pickle=False)
    return _checked(prepare, [pixels.copy() for _ in range(batch)], expected, threads, tolerance)


def _checked(
    prepare: Callable[[Any, "Floats"], object],
    sources: Sequence[object],
    expected: str,
    threads: int,
    tolerance: float,
) -> Repeated:
    import numpy as np

    out = np.full((len(sources), 3, CROP, CROP), np.nan, np.float32)
    if len(sources) == 1 or threads == 1:

        def operation() -> None:
            for source, row in zip(sources, out, strict=True):
                prepare(source, row)
    else:
        pool = ThreadPoolExecutor(threads)

        def operation() -> None:
            for _ in pool.map(prepare, sources, out):
                pass

    operation()
    wanted = np.load(expected, allow_pickle=False)
    error = float(np.abs((out - wanted) * (255 * np.array(STD)).reshape(3, 1, 1)).max())
    if not error <= tolerance:  # NaN is wrong too
        raise SystemExit(
            f"a pixel is off by {error:.3g}/255 from the reference,"
            f" and may be off by {tolerance:.3g}/255"
        )
    return Repeated(operation, rows=len(sources), facts={})


def model_workload(
    load: Load, *, inputs: str, expected: str, rows: int, tolerance: float
) -> Repeated:
    """A model that is run on the same inputs again and again; checked before it is measured.

    Its fact `load_s` is the time from the model's file to its first answer, its libraries being
    imported already.

    Args:
        inputs: What `write_arrays` wrote.
        expected: What `write_arrays` wrote; the names decide which outputs are compared.
        rows: In one batch of inputs.
        tolerance: Of an output's largest difference, as a part of its largest expected value.

    Raises:
        SystemExit: The answer is wrong.
    """
    feeds, wanted = read_arrays(inputs), read_arrays(expected)
    begin = time.perf_counter()
    run = load(feeds, tuple(wanted))
    found = run()
    load_s = time.perf_counter() - begin
    if len(found) != len(wanted):
        raise SystemExit(f"it gives {len(found)} outputs, and {len(wanted)} are expected")
    for (name, reference), array in zip(wanted.items(), found, strict=True):
        check_output(name, array, reference, tolerance)
    return Repeated(run, rows=rows, facts={"load_s": load_s})


def check_output(name: str, array: "Array", reference: "Array", tolerance: float) -> None:
    """Compares one output with what is expected.

    Raises:
        SystemExit: It has another shape, or differs by more than the tolerance.
    """
    import numpy as np

    if array.shape != reference.shape:
        raise SystemExit(
            f"output '{name}' has shape {list(array.shape)}, not {list(reference.shape)}"
        )
    wide = reference.astype(np.float64)
    scale = float(np.abs(wide).max(initial=0.0)) or 1.0
    error = float(np.abs(array.astype(np.float64) - wide).max(initial=0.0)) / scale
    if not error <= tolerance:  # NaN is wrong too
        raise SystemExit(
            f"output '{name}' is off by {error:.3g} of its largest value,"
            f" and may be off by {tolerance:.3g}"
        )


def write_arrays(path: str | os.PathLike[str], arrays: "Arrays") -> None:
    """Writes named arrays, in their order, into a .npz; any name will do."""
    import numpy as np

    np.savez(path, *arrays.values(), names=np.array(list(arrays), dtype=np.str_))


def read_arrays(path: str) -> dict[str, "Array"]:
    """What `write_arrays` wrote."""
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return {str(name): file[f"arr_{place}"] for place, name in enumerate(file["names"])}
