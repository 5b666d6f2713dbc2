"""Small networks of the usual kinds as graphs, made by the compiler's own first steps."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from headrace.tensors import Array, TensorSpec
from headrace_compiler.graph import Graph
from headrace_compiler.recipe import Recipe
from headrace_compiler.steps.capture import capture
from headrace_compiler.steps.export import Exportable, export
from headrace_compiler.steps.samples import draw_samples
from headrace_compiler.steps.simplify import simplify

WORDS, WIDTH, HEADS = 50, 32, 4


class Pictures(nn.Module):
    """Pictures (batch, 3, 16, 16) to scores (batch, 10): a residual of depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.deep = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(), nn.Conv2d(16, 16, 1)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The scores."""
        x = self.stem(pixels)
        scores: torch.Tensor = self.classifier(self.pool(x + self.deep(x)).flatten(1))
        return scores


class Texts(nn.Module):
    """Token ids and their mask, (batch, length), to vectors (batch, length, 32).

    Args:
        packed: Whether query, key and value come of one product.
        masked: Whether attention sees the mask.
        causal: Whether attention sees what comes later.
        approximate: Of the GELU.
    """

    def __init__(
        self,
        *,
        packed: bool = True,
        masked: bool = True,
        causal: bool = False,
        approximate: str = "none",
    ) -> None:
        super().__init__()
        self.packed, self.masked, self.causal = packed, masked, causal
        self.approximate = approximate
        self.words = nn.Embedding(WORDS, WIDTH)
        self.projections = nn.ModuleList(
            [nn.Linear(WIDTH, 3 * WIDTH)] if packed else [nn.Linear(WIDTH, WIDTH) for _ in range(3)]
        )
        self.output = nn.Linear(WIDTH, WIDTH)
        self.attended, self.normalized = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The vectors; those of tokens that the mask hides are zero."""
        x = self.words(ids)
        parts = [part for layer in self.projections for part in self._split(layer(x))]
        query, key, value = (
            torch.unflatten(part, -1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in parts
        )
        keep = mask[:, None, None, :] > 0 if self.masked else None
        mixed = scaled_dot_product_attention(
            query, key, value, attn_mask=keep, is_causal=self.causal
        )
        x = self.attended(x + self.output(mixed.transpose(1, 2).flatten(2)))
        inner = gelu(self.inner(x), approximate=self.approximate)
        x = self.normalized(x + self.outer(inner))
        shown: torch.Tensor = x * mask[:, :, None].to(x.dtype)
        return shown

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.chunk(3, -1) if self.packed else (x,)


class Columns(nn.Module):
    """Columns (batch, `width`) to scores (batch, 10)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """The scores."""
        scores: torch.Tensor = self.layers(columns)
        return scores


def pixels(rows: int, seed: int = 0) -> dict[str, Array]:
    """Inputs of `Pictures`."""
    generator = np.random.default_rng(seed)
    return {"pixels": generator.standard_normal((rows, 3, 16, 16), dtype=np.float32)}


def tokens(rows: int, length: int, seed: int = 0) -> dict[str, Array]:
    """Inputs of `Texts`, of which all but the first row hide some tokens, and the last all."""
    generator = np.random.default_rng(seed)
    kept = np.linspace(length, 0, rows, dtype=np.int64)[:, np.newaxis]
    return {
        "ids": generator.integers(0, WORDS, (rows, length), np.int64),
        "mask": (np.arange(length) < kept).astype(np.int64),
    }


def columns(rows: int, width: int = 64, seed: int = 0) -> dict[str, Array]:
    """Inputs of `Columns`."""
    generator = np.random.default_rng(seed)
    return {"columns": generator.standard_normal((rows, width), dtype=np.float32)}


@functools.cache
def pictures_graph() -> Graph:
    """The graph of `Pictures`."""
    spec = TensorSpec(name="pixels", datatype="FP32", shape=("batch", 3, 16, 16))
    return _graph(Pictures(), (spec,), pixels(2), "scores")


@functools.cache
def texts_graph(
    *,
    packed: bool = True,
    masked: bool = True,
    causal: bool = False,
    approximate: str = "none",
    length: int | None = None,
) -> Graph:
    """The graph of `Texts`; the axis `length` is dynamic where no length is given."""
    model = Texts(packed=packed, masked=masked, causal=causal, approximate=approximate)
    shape = ("batch", length or "length")
    specs = tuple(TensorSpec(name=name, datatype="INT64", shape=shape) for name in ("ids", "mask"))
    return _graph(model, specs, tokens(2, length or 7), "vectors")


@functools.cache
def columns_graph(width: int = 64) -> Graph:
    """The graph of `Columns`."""
    spec = TensorSpec(name="columns", datatype="FP32", shape=("batch", width))
    return _graph(Columns(width), (spec,), columns(2, width), "scores")


def _graph(
    model: nn.Module, inputs: tuple[TensorSpec, ...], sample: dict[str, Array], output: str
) -> Graph:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    recipe = Recipe(
        name="network",
        version="1",
        model=lambda: model,
        inputs=inputs,
        outputs=(output,),
        samples=lambda: [sample],
    )
    folder = Path(__file__).parent
    samples = draw_samples(recipe, folder)
    return simplify(export(Exportable(recipe, folder, capture(recipe, folder, samples))))
