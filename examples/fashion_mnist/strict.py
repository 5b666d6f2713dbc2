"""The network of recipe.py under a budget that plain int8 does not meet.

    headrace compile examples/fashion_mnist/strict.py

Here a variant must give the logits of fp32, and not merely its classes: the cosine may lose four
parts in a million, and int8 loses ten. So the bundle holds a variant of bf16, or one whose most
sensitive layers stayed float, and the report says what int8 lost.
"""

import fashion  # type: ignore[import-not-found]  # beside this file, where only a build looks

from headrace_compiler import Budget, Recipe, TopK

recipe = Recipe(
    name="fashion-mnist-strict",
    version="1",
    description="Classifies 28 x 28 grey pixels into ten kinds of garment, losing next to nothing.",
    model=fashion.train,
    inputs=fashion.INPUTS,
    outputs=fashion.OUTPUTS,
    postprocessing=TopK(output="logits", k=3, labels=fashion.LABELS),
    samples=fashion.samples,
    calibration=fashion.calibration,
    evaluation=fashion.agreement,
    metric="cosine",
    budget=Budget(accuracy_loss=4e-6),
)
