"""What preprocessing of a table a bundle declares: its columns become one row of features each.

The spec is data. The reference (`headrace.preprocess.table.reference`) says what it means, slowly.
"""

from itertools import accumulate
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.tensors import BATCH, Datatype, Frozen, TensorName, TensorSpec

MAX_COLUMNS = 256
"""As many inputs as one request may have."""
MAX_FEATURES = 1 << 20
"""Of one row."""
LARGEST = float.fromhex("0x1.fffffep+127")
"""Of FP32."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Text = Annotated[str, Field(max_length=1024)]


class _Column(Frozen):
    """A column.

    Attributes:
        name: Of the raw tensor that clients send, shape (batch,).
    """

    name: TensorName


class Number(_Column):
    """FP64 to one feature, `(value - mean) / std`, in float64 and then rounded to float32.

    As scikit-learn's SimpleImputer and StandardScaler. With a mean of 0 and a std of 1 the value
    goes on as it is. A feature must be finite: infinities, and what FP32 cannot hold, are errors.

    Attributes:
        impute: What stands in for a missing value (NaN). None makes that an error.
    """

    kind: Literal["number"] = "number"
    impute: Finite | None = None
    mean: Finite = 0.0
    std: Finite = 1.0

    @model_validator(mode="after")
    def _makes_finite_features(self) -> Self:
        if self.std == 0.0:
            raise ValueError("std must not be zero")
        if self.impute is not None and abs((self.impute - self.mean) / self.std) > LARGEST:
            raise ValueError("the imputed value, standardised, is too large for FP32")
        return self

    @property
    def datatype(self) -> Datatype:
        """Of the raw tensor."""
        return "FP64"

    @property
    def features(self) -> int:
        """How many it makes."""
        return 1


class OneHot(_Column):
    """A category to one feature each: 1 for the one that it is, 0 for the others.

    As scikit-learn's OneHotEncoder.

    Attributes:
        categories: In the order of the features. Texts are sent as BYTES and are equal where their
            UTF-8 bytes are; whole numbers are sent as INT64.
        unknown: What any other value is: zeros alone; an error; or one more feature, the last.
    """

    kind: Literal["one_hot"] = "one_hot"
    categories: Annotated[
        tuple[Text, ...] | tuple[Whole, ...], Field(min_length=1, max_length=MAX_FEATURES)
    ]
    unknown: Literal["zeros", "error", "other"] = "zeros"

    @model_validator(mode="after")
    def _categories_differ(self) -> Self:
        if len({*self.categories}) < len(self.categories):
            raise ValueError("a category is given twice")
        return self

    @property
    def datatype(self) -> Datatype:
        """Of the raw tensor."""
        return "BYTES" if isinstance(self.categories[0], str) else "INT64"

    @property
    def features(self) -> int:
        """How many it makes."""
        return len(self.categories) + (self.unknown == "other")


class Hash(_Column):
    """A text, sent as BYTES, to `buckets` features: one is 1 or -1, the others are 0.

    The text's MurmurHash3 (x86, 32 bits, seed 0) is taken as a signed number: its absolute value
    modulo `buckets` tells which. This is what scikit-learn's FeatureHasher(input_type="string")
    makes of one string a row.

    Attributes:
        signed: Whether a negative hash makes it -1; FeatureHasher's `alternate_sign`.
    """

    kind: Literal["hash"] = "hash"
    buckets: Annotated[int, Field(ge=1, le=MAX_FEATURES)]
    signed: bool = True

    @property
    def datatype(self) -> Datatype:
        """Of the raw tensor."""
        return "BYTES"

    @property
    def features(self) -> int:
        """How many it makes."""
        return self.buckets


Column = Annotated[Number | OneHot | Hash, Field(discriminator="kind")]


class TablePreprocessing(Frozen):
    """One table pipeline: the features of all columns, in their order.

    Attributes:
        columns: Each a raw tensor of its own.
        output: The model input that the pipeline fills: FP32, shape (batch, features).
    """

    kind: Literal["table"] = "table"
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=MAX_COLUMNS)]
    output: Annotated[str, Field(max_length=128)]

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        names = {column.name for column in self.columns}
        if len(names) < len(self.columns):
            raise ValueError("two columns have the same name")
        if self.output in names:
            raise ValueError("a column needs a name other than the model's own")
        if self.features > MAX_FEATURES:
            raise ValueError(f"the columns make {self.features} features: at most {MAX_FEATURES}")
        return self

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """What clients send."""
        return tuple(
            TensorSpec(name=column.name, datatype=column.datatype, shape=(BATCH,))
            for column in self.columns
        )

    @property
    def makes(self) -> tuple[TensorSpec, ...]:
        """The model inputs that are filled."""
        return (TensorSpec(name=self.output, datatype="FP32", shape=(BATCH, self.features)),)

    @property
    def features(self) -> int:
        """How many a row has."""
        return sum(column.features for column in self.columns)

    @property
    def begins(self) -> tuple[int, ...]:
        """The first feature of each column."""
        return tuple(accumulate((column.features for column in self.columns[:-1]), initial=0))
