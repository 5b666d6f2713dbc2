"""What a text pipeline declares."""

import pytest
from pydantic import TypeAdapter, ValidationError

from headrace.preprocess.spec import Preprocessing
from headrace.preprocess.text.spec import TextPreprocessing
from headrace.tensors import TensorSpec

SPEC = TextPreprocessing(
    input="text",
    tokenizer="tokenizer.json",
    ids="ids",
    mask="mask",
    types="types",
    length=8,
    pad_id=0,
)


def _changed(**changes: object) -> TextPreprocessing:
    return TextPreprocessing.model_validate({**SPEC.model_dump(), **changes})


def test_texts_become_up_to_three_inputs() -> None:
    """Clients send strings; ids, mask and types are made, the last two where they are named."""
    assert SPEC.takes == (TensorSpec(name="text", datatype="BYTES", shape=("batch",)),)
    shape = ("batch", "sequence")
    names = ("ids", "mask", "types")
    assert SPEC.makes == tuple(TensorSpec(name=n, datatype="INT64", shape=shape) for n in names)
    assert [made.name for made in _changed(mask=None, types=None).makes] == ["ids"]


def test_the_width_is_dynamic_or_the_length() -> None:
    """The axis of the tokens bears the name it is given, or has the size `length`."""
    assert _changed(axis="tokens").makes[0].shape == ("batch", "tokens")
    fixed = _changed(padding="fixed", datatype="INT32").makes[1]
    assert (fixed.shape, fixed.datatype) == (("batch", 8), "INT32")


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": "text"},
        {"mask": "ids"},
        {"types": "mask"},
        {"axis": "batch"},
        {"ids": "no name"},
        {"tokenizer": ""},
        {"length": 0},
        {"length": 2**30},
        {"pad_id": -1},
        {"pad_id": 2**31},
        {"max_bytes": 0},
        {"output": "ids"},
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    """Names that meet or are none, and numbers out of bounds."""
    with pytest.raises(ValidationError):
        _changed(**changes)


def test_a_manifest_holds_it() -> None:
    """It is read again as what it was, by its kind."""
    adapter: TypeAdapter[Preprocessing] = TypeAdapter(Preprocessing)
    assert adapter.validate_json(adapter.dump_json(SPEC)) == SPEC
