"""A text encoder of MiniLM-L6's shape with random weights: Wang et al., "MiniLM", 2020.

Six BERT layers of 384 channels and twelve heads, and the mean of the tokens' vectors.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from headrace.tensors import Array
from headrace_compiler import Recipe, TensorSpec

LAYERS, WIDTH, HEADS, TOKENS, WORDS = 6, 384, 12, 128, 30522


class Layer(nn.Module):
    """Attention and two linear layers, each followed by its normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.attended = nn.LayerNorm(WIDTH)
        self.inner = nn.Linear(WIDTH, 4 * WIDTH)
        self.outer = nn.Linear(4 * WIDTH, WIDTH)
        self.normalized = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Vectors (batch, tokens, channels); `keep` is (batch, 1, 1, tokens)."""
        query, key, value = (
            part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in self.projection(x).chunk(3, dim=-1)
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=keep)
        x = self.attended(x + self.output(mixed.transpose(1, 2).flatten(2)))
        found: torch.Tensor = self.normalized(x + self.outer(gelu(self.inner(x))))
        return found


class Encoder(nn.Module):
    """Token ids and their mask, (batch, 128) each, to vectors (batch, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.normalized = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The mean vector of the tokens that the mask keeps."""
        keep = attention_mask[:, None, None, :] > 0
        x = self.normalized(self.words(input_ids) + self.places)
        for layer in self.layers:
            x = layer(x, keep)
        weights = attention_mask[:, :, None].to(x.dtype)
        mean: torch.Tensor = (x * weights).sum(1) / weights.sum(1)
        return mean


def samples() -> Iterator[dict[str, Array]]:
    """Random words, in texts of several lengths."""
    generator = np.random.default_rng(0)
    for number in range(8):
        length = TOKENS - 8 * number
        yield {
            "input_ids": generator.integers(0, WORDS, (1, TOKENS), np.int64),
            "attention_mask": (np.arange(TOKENS) < length).astype(np.int64)[np.newaxis],
        }


recipe = Recipe(
    name="minilm-random",
    version="1",
    description="A text encoder of MiniLM's shape with random weights, for benchmarks.",
    model=Encoder,
    inputs=(
        TensorSpec(name="input_ids", datatype="INT64", shape=("batch", TOKENS)),
        TensorSpec(name="attention_mask", datatype="INT64", shape=("batch", TOKENS)),
    ),
    outputs=("vectors",),
    samples=samples,
)
