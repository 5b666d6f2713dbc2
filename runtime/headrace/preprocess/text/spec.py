"""What preprocessing of text a bundle declares: strings become the model's tokens."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.tensors import BATCH, Frozen, TensorName, TensorSpec


class TextPreprocessing(Frozen):
    """One text pipeline: what a tokenizer.json of the `tokenizers` library says, cut and padded.

    What the file itself says of truncation and padding does not count. A text may spell a special
    token, as "[SEP]", and gets it, as with `transformers`.

    Attributes:
        input: The name under which clients send texts: datatype BYTES, UTF-8, shape (batch,).
        tokenizer: The path of the tokenizer.json: in a recipe absolute or relative to the recipe
            file, in a bundle relative to the bundle.
        ids: The model input for the tokens' numbers.
        mask: The model input for the attention mask, 1 for a token and 0 for padding.
        types: The model input for the tokens' types, 0 for padding.
        length: At most so many tokens, special ones included. Longer texts lose their end.
        padding: On the right, to the `longest` text of a batch, and to one token at least; or, as
            `fixed`, to `length`.
        pad_id: The number of the padding token.
        datatype: Of all three.
        axis: The name of the tokens' axis where it is dynamic, which is with `longest`.
        max_bytes: Longer texts are refused before they are tokenized, which takes up to a
            microsecond and 500 bytes of memory a byte, however few tokens are kept.
    """

    kind: Literal["text"] = "text"
    input: TensorName
    tokenizer: Annotated[str, Field(min_length=1, max_length=4096)]
    ids: TensorName
    mask: TensorName | None = None
    types: TensorName | None = None
    length: Annotated[int, Field(ge=1, le=2**17)]
    padding: Literal["longest", "fixed"] = "longest"
    pad_id: Annotated[int, Field(ge=0, lt=2**31)]
    datatype: Literal["INT64", "INT32"] = "INT64"
    axis: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)] = "sequence"
    max_bytes: Annotated[int, Field(ge=1, le=2**26)] = 2**16

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [name for name in (self.input, self.ids, self.mask, self.types) if name]
        if len(names) != len(set(names)):
            raise ValueError("the raw input and the model's inputs need different names")
        if self.axis == BATCH:
            raise ValueError(f"'{BATCH}' is the name of the first axis: name the tokens' otherwise")
        return self

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """What clients send."""
        return (TensorSpec(name=self.input, datatype="BYTES", shape=(BATCH,)),)

    @property
    def makes(self) -> tuple[TensorSpec, ...]:
        """The model inputs that are filled."""
        shape = (BATCH, self.axis if self.padding == "longest" else self.length)
        return tuple(
            TensorSpec(name=name, datatype=self.datatype, shape=shape)
            for name in (self.ids, self.mask, self.types)
            if name is not None
        )
