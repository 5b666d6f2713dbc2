"""Files that are no tokenizers, or bad ones: each is an error of ours, and the process goes on."""

import json
from typing import Any

import pytest

from headrace.errors import BundleError, InternalError
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.preprocess.text.tokenize import open_tokenizer

WORDS = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
MERGES = {"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": [["a", "a"]]}
ADDED = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


def _file(**parts: object) -> bytes:
    steps = ("normalizer", "pre_tokenizer", "post_processor")
    return json.dumps({"version": "1.0", **dict.fromkeys(steps), "model": WORDS, **parts}).encode()


def _spec(**changes: object) -> TextPreprocessing:
    plain = {"input": "text", "tokenizer": "tokenizer.json", "ids": "ids", "length": 8, "pad_id": 0}
    return TextPreprocessing.model_validate({**plain, **changes})


def _pieces(*tokens: str) -> dict[str, object]:
    return {"type": "Unigram", "vocab": [[token, -1.0] for token in tokens], "unk_id": 0}


def _split(regex: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _template(
    *steps: dict[str, dict[str, object]], **tokens: dict[str, object]
) -> dict[str, object]:
    return {"type": "TemplateProcessing", "single": steps, "pair": [], "special_tokens": tokens}


def _nested(step: dict[str, object], levels: int) -> dict[str, object]:
    for _ in range(levels):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


FIRST: dict[str, dict[str, object]] = {"Sequence": {"id": "A", "type_id": 0}}
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(100),
    "no text": b"\xff\xfe{",
    "cut": _file()[:-9],
    "a list": b"[]",
    "a number": b"7",
    "nothing": b"{}",
    "a word for a model": _file(model="WordLevel"),
    "no vocabulary": _file(model={"type": "WordLevel"}),
    "a number for a vocabulary": _file(model={**WORDS, "vocab": 7}),
    "numbers for tokens": _file(model={**WORDS, "vocab": [[1, 2]]}),
    "half a character": _file(model={**WORDS, "vocab": {"\ud800": 0}}),
    "added tokens without a name": _file(added_tokens=[ADDED]),
    "a deep list": b'{"model":' + b"[" * 1_000_000,
    "a deep object": b'{"model":' * 100_000,
    "a long number": _file()[:-1] + b',"version":' + b"9" * 10_000 + b"}",
    "another version": _file(version="9"),
    "an unknown model": _file(model={**WORDS, "type": "Pickle"}),
    "an unknown normalizer": _file(normalizer={"type": "Pickle"}),
    "a negative id": _file(model={**WORDS, "vocab": {"a": -1}}),
    "an id of 41 bits": _file(model={**WORDS, "vocab": {"a": 2**40}}),
    "a merge of unknown tokens": _file(model={**MERGES, "merges": [["a", "b"]]}),
    "no pieces": _file(model=_pieces()),
    "an unknown piece that is none": _file(model={**_pieces("a"), "unk_id": 5}),
    "a broken expression": _file(pre_tokenizer=_split("((")),
    "a deep expression": _file(pre_tokenizer=_split("(" * 100_000 + ")" * 100_000)),
    "deep normalizers": _file(normalizer=_nested({"type": "Lowercase"}, 200)),
    "a table that panics": _file(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "/////wAA"}
    ),
}
BEYOND: dict[str, tuple[bytes, str]] = {
    "a token that overflows the stack": (_file(model=_pieces("a", "x" * 1_000_000)), "a token"),
    "a long added token": (
        _file(added_tokens=[{"id": 2, "content": "x" * 5000, **ADDED}]),
        "a token",
    ),
    "a large vocabulary": (
        _file(model=_pieces(*(f"{number:04}" + "é" * 2000 for number in range(2200)))),
        "vocabulary",
    ),
    "many steps": (
        _file(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 50_000}),
        "steps around its model",
    ),
    "a large file": (b" " * (2**26 + 1), "larger than 64 MiB"),
    "tokens drawn by lot": (_file(model={**MERGES, "dropout": 0.5}), "at random"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_tokenizer_is_refused(name: str) -> None:
    """Whatever it is instead, with one sentence."""
    with pytest.raises(BundleError, match=r"the tokenizer cannot be used: .") as found:
        open_tokenizer(_spec(), BROKEN[name])
    assert found.value.code == "bundle.tokenizer"
    assert len(found.value.message) < 300


@pytest.mark.parametrize("name", BEYOND)
def test_what_takes_too_much_is_refused(name: str) -> None:
    """Before the library sees it; so is what gives equal texts different tokens."""
    content, reason = BEYOND[name]
    with pytest.raises(BundleError, match=reason) as found:
        open_tokenizer(_spec(), content)
    assert found.value.code == "bundle.tokenizer"


def test_what_stands_twice_is_read_once() -> None:
    """The library builds what was checked: the last, and not the one before it."""
    first = _file(model=_pieces("x" * 1_000_000))[:-1]
    content = first + b',"model":' + json.dumps(WORDS).encode() + b"}"
    assert open_tokenizer(_spec(), content).prepare([b"a"])["ids"].tolist() == [[0]]


@pytest.mark.parametrize("length", [1, 2])
def test_a_text_needs_room_beside_special_tokens(length: int) -> None:
    """A length that they fill is refused, where the library would not cut at all."""
    steps = ({"SpecialToken": {"id": "x", "type_id": 0}}, FIRST)
    content = _file(
        post_processor=_template(*steps, x={"id": "x", "ids": [7, 7], "tokens": ["x"] * 2})
    )
    with pytest.raises(BundleError, match=f"length {length} leaves no room beside 2 special"):
        open_tokenizer(_spec(length=length), content)
    assert open_tokenizer(_spec(length=3), content).prepare([b"aa"])["ids"].tolist() == [[7, 7, 1]]


@pytest.mark.parametrize(
    ("parts", "text", "reason"),
    [
        ({"model": {**WORDS, "unk_token": "?"}}, b"b", "Missing"),
        ({"model": {**_pieces("a"), "unk_id": None}}, b"b", "unk_id"),
        ({"pre_tokenizer": _split("(a+)+$")}, b"a" * 200 + b"c", "retry-limit"),
        ({"post_processor": _template(*[FIRST] * 9)}, b"a", "9 tokens where 8 are allowed"),
        ({"model": {**WORDS, "vocab": {"b": 2**32 - 1, "[UNK]": 1}}}, b"b", "4294967295"),
    ],
)
def test_a_tokenizer_that_fails_does_so_by_an_error(
    parts: dict[str, Any], text: bytes, reason: str
) -> None:
    """A panic in the library too; then the next texts are tokenized as if nothing had happened."""
    tokenizer = open_tokenizer(_spec(datatype="INT32"), _file(**parts))
    for texts in ([text], [text] * 8):
        with pytest.raises(InternalError, match=reason) as found:
            tokenizer.prepare(texts)
        assert found.value.code == "text.failed"
    assert tokenizer.prepare([b""])["ids"].tolist() == [[0]]
