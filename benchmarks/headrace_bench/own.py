"""headrace itself as a contestant: what its runtime does, in the process of a suite."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace.bundle.open import open_bundle
from headrace.choice import choose_variant
from headrace.engine.model import load_model
from headrace.hardware import detect_hardware
from headrace.preprocess.decode import Pixels
from headrace.preprocess.reference import Floats, prepare_image
from headrace.preprocess.spec import CenterCrop, ImagePreprocessing, Normalize, Resize
from headrace.tensors import Array
from headrace_bench.measure import Workload
from headrace_bench.peers import (
    CROP,
    MEAN,
    SHORTER,
    STD,
    kernel_workload,
    model_workload,
)

SPEC = ImagePreprocessing(
    input="image",
    output="pixels",
    resize=Resize(shorter=SHORTER),
    crop=CenterCrop(height=CROP, width=CROP),
    normalize=Normalize(
        mean=(255 * MEAN[0], 255 * MEAN[1], 255 * MEAN[2]),
        std=(255 * STD[0], 255 * STD[1], 255 * STD[2]),
    ),
)
"""What the suite `kernels` has everybody do."""
TOLERANCE = 0.01
"""float32 sums may be taken in another order."""


def open_kernel(*, image: str, expected: str, threads: int, batch: int) -> Workload:
    """The NumPy reference, which is what the runtime prepares images with.

    The runtime prepares the images of a batch one after the other, however many threads there are.
    """
    del threads

    def prepare(pixels: Pixels, out: Floats) -> None:
        out[...] = prepare_image(pixels, SPEC)

    return kernel_workload(
        prepare, image=image, expected=expected, threads=1, batch=batch, tolerance=TOLERANCE
    )


def open_bundle_session(
    *, bundle: str, inputs: str, expected: str, rows: int, threads: int, tolerance: float
) -> Workload:
    """The session of a bundle, loaded as the runtime loads it: verified, warmed and replayed."""

    def load(feeds: Mapping[str, Array], names: Sequence[str]) -> Callable[[], Sequence[Array]]:
        opened = open_bundle(Path(bundle))
        chosen = choose_variant(opened, detect_hardware(), threads=threads, batch=rows)
        model = load_model(opened, variant=chosen.variant, threads=threads)
        model.session.expect(feeds)  # as a batcher does for the sizes that it makes

        def run() -> Sequence[Array]:
            outputs = model.session.run(feeds)
            return [outputs[name] for name in names]

        return run

    return model_workload(load, inputs=inputs, expected=expected, rows=rows, tolerance=tolerance)
