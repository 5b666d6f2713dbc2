"""A network trained here on Fashion-MNIST: a grey picture of a garment in, its class out.

    headrace compile examples/fashion_mnist/recipe.py

Its variants are scored on the 10,000 test images. The data come from Debian:
`apt-get install dataset-fashion-mnist`.
"""

import fashion  # type: ignore[import-not-found]  # beside this file, where only a build looks

from headrace_compiler import Recipe, TopK

recipe = Recipe(
    name="fashion-mnist",
    version="1",
    description="Classifies 28 x 28 grey pixels into ten kinds of garment.",
    model=fashion.train,
    inputs=fashion.INPUTS,
    outputs=fashion.OUTPUTS,
    postprocessing=TopK(output="logits", k=3, labels=fashion.LABELS),
    samples=fashion.samples,
    calibration=fashion.calibration,
    evaluation=fashion.evaluation,
    metric="top1",
)
