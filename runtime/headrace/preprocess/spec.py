"""What preprocessing a bundle declares: encoded images become one tensor of the model.

The spec is data. The reference (`headrace.preprocess.reference`) says what it means, slowly.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.tensors import Frozen

Size = Annotated[int, Field(ge=1, le=16384)]
Channel = Annotated[float, Field(allow_inf_nan=False)]


class Decode(Frozen):
    """JPEG, PNG, WebP, GIF, BMP or TIFF bytes to uint8 RGB, shape (height, width, 3).

    Attributes:
        max_pixels: Images of more pixels are refused by their header, before they are decoded. At
            most 2**26: decoding takes up to ten bytes a pixel, for every request under way.
    """

    op: Literal["decode"] = "decode"
    max_pixels: Annotated[int, Field(ge=1, le=2**26)] = 32_000_000


class Resize(Frozen):
    """Resamples so that the shorter side is `shorter`, keeping the aspect ratio.

    The longer side becomes `round(long * shorter / short)`, halves rounded up. With antialiasing
    the filter's support grows with the reduction, as Pillow's `resize` does. Values are kept as
    float32 and are not rounded back to integers; what bicubic throws beyond 0..255 is clamped,
    once at the end, so that the order of the two axes does not matter.
    """

    op: Literal["resize"] = "resize"
    shorter: Size
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: Literal[True] = True


class CenterCrop(Frozen):
    """Cuts the middle `height` x `width`; an odd remainder leaves its extra pixel at the end.

    The image must be at least as large.
    """

    op: Literal["center_crop"] = "center_crop"
    height: Size
    width: Size


class Normalize(Frozen):
    """`(value - mean) / std` for each of the three channels, in float32 on the 0..255 scale."""

    op: Literal["normalize"] = "normalize"
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Channel, Channel, Channel]

    @model_validator(mode="after")
    def _no_zero_std(self) -> Self:
        if 0.0 in self.std:
            raise ValueError("std must not hold a zero")
        return self


class Layout(Frozen):
    """The order of the axes of the result: (channel, height, width) or (height, width, channel)."""

    op: Literal["layout"] = "layout"
    order: Literal["CHW", "HWC"] = "CHW"


class ImagePreprocessing(Frozen):
    """One image pipeline, whose operations stand in this order.

    Attributes:
        input: The name under which clients send encoded images: datatype BYTES, shape (batch,).
        output: The model input that the pipeline fills: FP32, shape (batch, *layout).
    """

    kind: Literal["image"] = "image"
    input: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]*$", max_length=128)]
    output: str
    decode: Decode = Decode()
    resize: Resize
    crop: CenterCrop
    normalize: Normalize
    layout: Layout = Layout()

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if max(self.crop.height, self.crop.width) > self.resize.shorter:
            raise ValueError("the crop is larger than the shorter side that resize leaves")
        if self.input == self.output:
            raise ValueError("the raw input needs a name other than the model's own")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one prepared image, without the batch axis."""
        height, width = self.crop.height, self.crop.width
        return (3, height, width) if self.layout.order == "CHW" else (height, width, 3)
