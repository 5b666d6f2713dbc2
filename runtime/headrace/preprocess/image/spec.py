"""What preprocessing a bundle declares: encoded images become one tensor of the model.

The spec is data. The reference (`headrace.preprocess.image.reference`) says what it means, slowly.
"""

from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from headrace.tensors import BATCH, Frozen, TensorName, TensorSpec

Size = Annotated[int, Field(ge=1, le=16384)]
Channel = Annotated[float, Field(allow_inf_nan=False)]


class Decode(Frozen):
    """JPEG, PNG, WebP, GIF, BMP or TIFF bytes to uint8 RGB, shape (height, width, 3).

    Attributes:
        max_pixels: Images of more pixels are refused by their header, before they are decoded. At
            most 2**26: decoding takes up to ten bytes a pixel, for every request under way.
        upright: Turn and mirror the image as its EXIF orientation says.
        reduced: Let a JPEG be decoded at some eighths of its size, as long as both sides stay at
            least twice what the resize makes of them. Quicker on large photographs, and pixels
            shift a little: a choice for the accuracy gate.
    """

    op: Literal["decode"] = "decode"
    max_pixels: Annotated[int, Field(ge=1, le=2**26)] = 32_000_000
    upright: bool = False
    reduced: bool = False


class Colour(Frozen):
    """Which channels go on: red, green, blue; the same reversed; or one, luma.

    Luma is ITU-R BT.601's, 0.299 red + 0.587 green + 0.114 blue, of the resized image in float32.
    """

    op: Literal["colour"] = "colour"
    channels: Literal["RGB", "BGR", "L"] = "RGB"


class _Resampling(Frozen):
    """How values between pixels are found.

    With antialiasing the filter's support grows with the reduction, as Pillow's `resize` does.
    Without, it does not, as in OpenCV; then pixels between the windows go unread. `nearest` takes
    the pixel under the centre, and cannot be antialiased. Values are kept as float32 and are not
    rounded back to integers; what bicubic throws beyond 0..255 is clamped, once at the end, so
    that the order of the two axes does not matter.
    """

    filter: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: bool = True

    @model_validator(mode="after")
    def _nearest_is_not_antialiased(self) -> Self:
        if self.filter == "nearest" and self.antialias:
            raise ValueError("nearest cannot be antialiased: say antialias=False")
        return self


class Resize(_Resampling):
    """Resamples so that the shorter side is `shorter`, keeping the aspect ratio.

    The longer side becomes `round(long * shorter / short)`, halves rounded up. A crop follows.
    """

    op: Literal["resize"] = "resize"
    shorter: Size


class Stretch(_Resampling):
    """Resamples to `height` x `width`, whatever the aspect ratio was."""

    op: Literal["stretch"] = "stretch"
    height: Size
    width: Size


class Letterbox(_Resampling):
    """Resamples to fit into `height` x `width`, keeping the aspect ratio, and fills the rest.

    The image is scaled by the smaller of the two ratios; sides are rounded, halves up, to at least
    one pixel. It stands in the middle; an odd remainder is filled at the end.

    Attributes:
        fill: The value of every channel beside the image, before normalisation.
    """

    op: Literal["letterbox"] = "letterbox"
    height: Size
    width: Size
    fill: Annotated[int, Field(ge=0, le=255)] = 114


class CenterCrop(Frozen):
    """Cuts the middle `height` x `width`; an odd remainder leaves its extra pixel at the end.

    The image must be at least as large.
    """

    op: Literal["center_crop"] = "center_crop"
    height: Size
    width: Size


class Normalize(Frozen):
    """`(value - mean) / std` for each channel, in float32 on the 0..255 scale."""

    op: Literal["normalize"] = "normalize"
    mean: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=3)]
    std: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=3)]

    @model_validator(mode="after")
    def _no_zero_std(self) -> Self:
        if 0.0 in self.std:
            raise ValueError("std must not hold a zero")
        return self


class Layout(Frozen):
    """The order of the axes of the result: (channel, height, width) or (height, width, channel)."""

    op: Literal["layout"] = "layout"
    order: Literal["CHW", "HWC"] = "CHW"


class Cast(Frozen):
    """The datatype of the result.

    FP16 is rounded to the nearest, halves to even. UINT8 is rounded, halves up, and clamped to
    0..255.
    """

    op: Literal["cast"] = "cast"
    datatype: Literal["FP32", "FP16", "UINT8"] = "FP32"


class ImagePreprocessing(Frozen):
    """One image pipeline, whose operations stand in this order.

    To scale pixels to 0..1, normalize with a mean of 0 and a std of 255.

    Attributes:
        input: The name under which clients send encoded images: datatype BYTES, shape (batch,).
        output: The model input that the pipeline fills: shape (batch, *shape).
        crop: After `Resize`, which leaves one side open; none after the others.
    """

    kind: Literal["image"] = "image"
    input: TensorName
    output: str
    decode: Decode = Decode()
    colour: Colour = Colour()
    resize: Annotated[Resize | Stretch | Letterbox, Field(discriminator="op")]
    crop: CenterCrop | None = None
    normalize: Normalize | None = None
    layout: Layout = Layout()
    cast: Cast = Cast()

    @model_validator(mode="after")
    def _operations_fit(self) -> Self:
        if isinstance(self.resize, Resize):
            if self.crop is None:
                raise ValueError("resize by the shorter side leaves the other open: give a crop")
            if max(self.crop.height, self.crop.width) > self.resize.shorter:
                raise ValueError("the crop is larger than the shorter side that resize leaves")
        elif self.crop is not None:
            raise ValueError(f"{self.resize.op} gives the size already: leave the crop out")
        if self.normalize is not None:
            given = {len(self.normalize.mean), len(self.normalize.std)}
            if given != {self.channels}:
                raise ValueError(f"normalize needs a mean and a std for {self.channels} channels")
        if self.input == self.output:
            raise ValueError("the raw input needs a name other than the model's own")
        return self

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """What clients send."""
        return (TensorSpec(name=self.input, datatype="BYTES", shape=(BATCH,)),)

    @property
    def makes(self) -> tuple[TensorSpec, ...]:
        """The model inputs that are filled."""
        made = self.cast.datatype
        return (TensorSpec(name=self.output, datatype=made, shape=(BATCH, *self.shape)),)

    @property
    def channels(self) -> int:
        """How many go on."""
        return 1 if self.colour.channels == "L" else 3

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the result."""
        made = cast("CenterCrop", self.crop) if isinstance(self.resize, Resize) else self.resize
        return made.height, made.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one prepared image, without the batch axis."""
        height, width = self.size
        planes = self.layout.order == "CHW"
        return (self.channels, height, width) if planes else (height, width, self.channels)
