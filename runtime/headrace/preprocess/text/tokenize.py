"""Tokenizes batches of texts with the `tokenizers` library, which is an extra.

The library shares a batch out to threads of its own, one a core, that all tokenizers of the process
have in common, and lets go of the interpreter's lock meanwhile. One text is done where it is asked
for. After a fork the child works on one thread. The environment's `TOKENIZERS_PARALLELISM=false`
and `RAYON_NUM_THREADS` have their say.

A tokenizer.json is data, and yet as powerful as a model: its regular expressions and replacements
may take any time and memory for a text. What is bounded here is what it takes to open one.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import (
    BundleError,
    HeadraceError,
    InternalError,
    InvalidRequestError,
    MissingError,
    TooLargeError,
)
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import NUMPY_DTYPES, Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_FILE = 1 << 26
"""Bytes of a tokenizer.json; the largest in use have about half of that."""
_MAX_TOKEN = 1 << 12
"""Bytes. The library keeps some vocabularies as a tree, a level a byte, and frees it by recursion:
one token of 200,000 bytes overflows the stack."""
_MAX_VOCABULARY = 1 << 23
"""Bytes of all tokens; such a tree takes up to 200 for each."""
_MAX_STEPS = 1 << 19
"""Characters of the steps around the model, which are parsed once more for each level they are
nested. The largest of SentencePiece's tables of normalized characters has some 330,000."""
_TOGETHER = 1 << 18
"""Characters that are tokenized at once: the library keeps 350 bytes for each until all are."""

_FAULTS = ("Exception", "ValueError", "OverflowError", "PanicException")
"""The names of what the library raises: the first is no subclass's, and the last, a panic of its
Rust code, is no Exception and stands in no module. NumPy raises the third for too large an id."""


@dataclass(frozen=True)
class TextTokenizer:
    """Makes the model's inputs of texts; many threads may at once.

    Attributes:
        spec: The pipeline.
        tokenizer: The library's, which cuts texts and does not pad them.
    """

    spec: TextPreprocessing
    tokenizer: "Tokenizer"

    def prepare(self, texts: Sequence[bytes]) -> dict[str, Array]:
        """Tokenizes a batch.

        Args:
            texts: UTF-8, one a row.

        Returns:
            By model input, shape (len(texts), width), of the spec's datatype; the width is
            `length`, or the number of the longest row's tokens, and at least one.

        Raises:
            InvalidRequestError: One of them is no UTF-8.
            TooLargeError: One of them has more bytes than the spec allows.
            InternalError: The tokenizer fails on them, or makes more tokens than `length`.
        """
        decoded = [_decode(self.spec, texts, row) for row in range(len(texts))]
        with _translated(_failed):
            tokens, types = self._encode(decoded)
            counts = np.array([len(row) for row in tokens], np.int64)
            longest = max(1, counts.max(initial=0))
            if longest > self.spec.length:
                raise _failed(f"it makes {longest} tokens where {self.spec.length} are allowed")
            width = longest if self.spec.padding == "longest" else self.spec.length
            dtype = NUMPY_DTYPES[self.spec.datatype]
            made = {self.spec.ids: _padded(tokens, width, self.spec.pad_id, dtype)}
            if self.spec.mask is not None:
                made[self.spec.mask] = (np.arange(width) < counts[:, np.newaxis]).astype(dtype)
            if self.spec.types is not None:
                made[self.spec.types] = _padded(types, width, 0, dtype)
            return made

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """The tokens of each text, and their types."""
        tokens, types = [], []
        for group in _groups(texts):
            for encoded in self.tokenizer.encode_batch_fast(group):
                tokens.append(encoded.ids)
                types.append(encoded.type_ids)
        return tokens, types


def open_tokenizer(spec: TextPreprocessing, content: bytes) -> TextTokenizer:
    """Opens the tokenizer of a pipeline.

    Args:
        content: Of the file that `spec.tokenizer` names; the caller has checked its digest.

    Raises:
        MissingError: The extra `text` is not installed.
        BundleError: The content is no tokenizer, or one that is too large, draws lots, or leaves
            no room for a text in `length`.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingError(
            "extra.text",
            f"texts are prepared by the tokenizers library, which cannot be imported: {error}",
            "pip install 'headrace[text]'",
        ) from error
    checked = _checked(content)
    with _translated(_unusable):
        tokenizer = Tokenizer.from_buffer(checked)
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        if special >= spec.length:  # the library would not cut at all
            raise _unusable(f"length {spec.length} leaves no room beside {special} special tokens")
        tokenizer.enable_truncation(spec.length)
    return TextTokenizer(spec, tokenizer)


def _checked(content: bytes) -> bytes:
    """What of a tokenizer.json the library is given, without truncation, padding and decoder.

    It is written anew, so that a key that stands twice is not read as one here and the other there.

    Raises:
        BundleError: It is something else, or more than the bounds allow.
    """
    if len(content) > _MAX_FILE:
        raise _unusable(f"it is larger than {_MAX_FILE >> 20} MiB")
    try:
        document = json.loads(content)
        lengths = [len(token.encode()) for token in _tokens(document)]
        kept = document | dict.fromkeys(("truncation", "padding", "decoder"))
        parts = {key: value for key, value in kept.items() if key not in ("model", "added_tokens")}
        steps = len(json.dumps(parts))
        random = document["model"].get("dropout")
        checked = json.dumps(kept).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(f"{type(error).__name__}: {error}") from error
    if max(lengths, default=0) > _MAX_TOKEN or sum(lengths) > _MAX_VOCABULARY:
        raise _unusable("a token, or the whole vocabulary, is too long")
    if steps > _MAX_STEPS:
        raise _unusable("the steps around its model are too long")
    if random:
        raise _unusable("it drops merges at random, and equal texts get different tokens")
    return checked


def _tokens(document: Any) -> list[str]:  # noqa: ANN401 - any JSON; other shapes raise
    """The vocabulary, a mapping to ids or pairs with scores, and the tokens that were added."""
    vocabulary = document["model"]["vocab"]
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else vocabulary
    added = document.get("added_tokens", ())
    return [token for token, _ in pairs] + [token["content"] for token in added]


def _decode(spec: TextPreprocessing, texts: Sequence[bytes], row: int) -> str:
    """One text of a batch; an error says which it is, where there are several."""
    where = f"text {row} of '{spec.input}', counted from 0," if len(texts) > 1 else "the text"
    if len(texts[row]) > spec.max_bytes:
        raise TooLargeError(
            "request.text-size",
            f"{where} has {len(texts[row])} bytes, and the model takes at most {spec.max_bytes}",
            "send less of it, or build the model with a larger max_bytes",
        )
    try:
        return texts[row].decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "request.text-encoding", f"{where} is no UTF-8: {error.reason} at byte {error.start}"
        ) from error


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, in lists of so many characters; a longer one stands alone."""
    group: list[str] = []
    size = 0
    for text in texts:
        size += len(text)
        if group and size > _TOGETHER:
            yield group
            group, size = [], len(text)
        group.append(text)
    if group:
        yield group


def _padded(rows: Sequence[list[int]], width: int, fill: int, dtype: np.dtype[Any]) -> Array:
    made: Array = np.full((len(rows), width), fill, dtype)
    for row, values in enumerate(rows):
        made[row, : len(values)] = np.array(values, dtype)
    return made


@contextmanager
def _translated(fault: Callable[[str], HeadraceError]) -> Iterator[None]:
    """Turns what the library raises into an error of ours; all else passes."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ in _FAULTS:
            raise fault(str(error)) from error
        raise


def _unusable(reason: str) -> BundleError:
    return BundleError("bundle.tokenizer", f"the tokenizer cannot be used: {reason:.200}")


def _failed(reason: str) -> InternalError:
    return InternalError("text.failed", f"the tokenizer fails: {reason:.200}")
