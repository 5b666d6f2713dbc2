"""Decoding images that strangers send."""

import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from headrace.errors import InvalidRequestError, TooLargeError
from headrace.preprocess.image.decode import _count_pairs, _FirstFrame, decode_image

HEIGHT, WIDTH = 19, 26
MANY = 10**6
Pixels = npt.NDArray[np.uint8]


def _pixels() -> Pixels:
    """A smooth gradient with some noise; red, green and blue differ."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 20, (HEIGHT, WIDTH))
    return np.stack([x * 9, y * 12, 60 + noise], axis=-1).astype(np.uint8)


def _encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body).to_bytes(4)
    return struct.pack(">I", len(body)) + kind + body + checksum


@cache
def _samples() -> dict[str, bytes]:
    """One small file of each kind that the decoder takes, all of the same picture."""
    image = Image.fromarray(_pixels())
    turned = Image.Exif()
    turned[0x0112] = 6
    samples = {f"png-{mode}": _encode(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "P")}
    samples |= {f"png-{mode}": _encode(image.convert(mode), "PNG") for mode in ("RGB", "RGBA")}
    samples |= {f"bmp-{mode}": _encode(image.convert(mode), "BMP") for mode in ("1", "L", "RGB")}
    samples |= {f"jpeg-{mode}": _encode(image.convert(mode), "JPEG") for mode in ("L", "CMYK")}
    samples |= {
        f"tiff-{name}": _encode(image, "TIFF", compression=name)
        for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    }
    return samples | {
        "jpeg": simplejpeg.encode_jpeg(_pixels(), quality=95),
        "jpeg-progressive": _encode(image, "JPEG", progressive=True),
        "jpeg-exif": _encode(image, "JPEG", exif=turned),
        "jpeg-cmyk-exif": _encode(image.convert("CMYK"), "JPEG", exif=turned),
        "gif": _encode(image, "GIF"),
        "gif-animated": _encode(
            image, "GIF", save_all=True, append_images=[image.rotate(90)], disposal=2
        ),
        "png-16": _encode(Image.fromarray(_pixels()[..., 0].astype(np.uint16) << 8), "PNG"),
        "png-animated": _encode(image, "PNG", save_all=True, append_images=[image.rotate(90)]),
        "tiff-16": _encode(Image.fromarray(_pixels()[..., 0].astype(np.uint16) << 8), "TIFF"),
        "tiff-pages": _encode(image, "TIFF", save_all=True, append_images=[image]),
        "webp": _encode(image, "WEBP"),
        "webp-lossless": _encode(image, "WEBP", lossless=True),
        "webp-alpha": _encode(image.convert("RGBA"), "WEBP", lossless=True, exif=turned),
        "webp-animated": _encode(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
    }


def _decodes_or_refuses(content: bytes) -> None:
    """The whole contract on arbitrary bytes: pixels within the limit, or one of two errors."""
    try:
        image = decode_image(content, 2000)
    except (InvalidRequestError, TooLargeError):
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.shape[0] * image.shape[1] <= 2000


@pytest.mark.parametrize("name", _samples())
def test_every_kind_becomes_rgb(name: str) -> None:
    """Each format and mode decodes to uint8 RGB of the picture's size, read in its own order."""
    image = decode_image(_samples()[name], MANY)
    assert image.dtype == np.uint8
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.flags.c_contiguous
    # The picture brightens from left to right in red, which all kinds keep (as grey, if need be).
    assert image[:, -6:, 0].mean() > image[:, :6, 0].mean() + 20


@pytest.mark.parametrize("name", ["png-RGB", "png-RGBA", "bmp-RGB", "webp-lossless", "tiff-raw"])
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    """What was stored without loss comes back exactly."""
    np.testing.assert_array_equal(decode_image(_samples()[name], MANY), _pixels())


@pytest.mark.parametrize("name", ["png-16", "tiff-16"])
def test_sixteen_bits_keep_their_high_byte(name: str) -> None:
    """16-bit grey is scaled to 8 bits, not clipped."""
    expected = np.repeat(_pixels()[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decode_image(_samples()[name], MANY), expected)


def test_jpeg_decodes_as_pillow_does() -> None:
    """The fast road gives what Pillow, on which most models were trained, gives."""
    content = _samples()["jpeg"]
    expected = np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)
    assert np.abs(decode_image(content, MANY) - expected).max() <= 1


def test_jpeg_with_stray_bytes_is_decoded() -> None:
    """Damage that viewers forgive and simplejpeg does not is forgiven."""
    content = _samples()["jpeg"]
    stray = content.replace(b"\xff\xc0", b"junk\xff\xc0", 1)
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stray)
    np.testing.assert_array_equal(decode_image(stray, MANY), decode_image(content, MANY))


def test_alpha_is_dropped_and_not_blended() -> None:
    """A fully transparent pixel keeps its colour, also where a palette holds the transparency."""
    image = Image.new("RGBA", (2, 2), (200, 100, 50, 0))
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    for content in (
        _encode(image, "PNG"),
        _encode(palette, "PNG", transparency=bytes([9, 0])),
        _encode(palette, "GIF", transparency=1),
    ):
        assert decode_image(content, MANY).reshape(-1, 3).tolist() == [[200, 100, 50]] * 4


@pytest.mark.parametrize(("height", "width"), [(1, 100_000), (100_000, 1), (65_536, 2)])
def test_a_line_of_pixels_is_refused(height: int, width: int) -> None:
    """Though it has few of them: working memory grows with a side."""
    content = _encode(Image.new("RGB", (width, height)), "PNG")
    with pytest.raises(TooLargeError, match="no side may have more than 65535"):
        decode_image(content, MANY)
    assert decode_image(_encode(Image.new("L", (65_535, 1)), "PNG"), MANY).shape == (1, 65_535, 3)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 10))
def test_an_image_is_turned_upright_on_demand(file_format: str, turn: int) -> None:
    """By each of the eight orientations, as Pillow turns it; a ninth means nothing."""
    told = Image.Exif()
    told[0x0112] = turn
    content = _encode(Image.fromarray(_pixels()), file_format, exif=told)
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(content)).convert("RGB"))
    found = decode_image(content, MANY, upright=True)
    assert found.shape == (wanted.height, wanted.width, 3)
    np.testing.assert_allclose(found, np.asarray(wanted), atol=1)


@given(st.lists(st.sampled_from([b"\xff", b"\xda", b"a"]), min_size=2).map(b"".join))
def test_pairs_are_counted_at_every_place(content: bytes) -> None:
    """Also across the words in which they are looked for."""
    assert _count_pairs(content, b"\xff\xda") == content.count(b"\xff\xda")


def test_a_broken_exif_block_turns_nothing() -> None:
    """The image is decoded as it is stored."""
    content = _samples()["jpeg-exif"].replace(b"Exif\0\0MM", b"Exif\0\0XX")
    content = content.replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert content != _samples()["jpeg-exif"]
    assert decode_image(content, MANY, upright=True).shape == (HEIGHT, WIDTH, 3)


def test_a_jpeg_is_decoded_small_where_that_is_enough() -> None:
    """At some eighths, never below what is enough, and whole above a half."""
    content = simplejpeg.encode_jpeg(np.zeros((160, 240, 3), np.uint8))
    for least, wanted in (
        ((80, 120), 80),
        ((61, 1), 80),
        ((40, 60), 40),
        ((1, 1), 20),
        ((81, 1), 160),
    ):
        found = decode_image(content, MANY, enough=lambda *_, least=least: least)
        assert found.shape[0] == wanted


def test_exif_orientation_is_ignored_otherwise() -> None:
    """A photograph taken with a turned camera keeps the shape in which it is stored."""
    assert decode_image(_samples()["jpeg-exif"], MANY).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", _samples())
def test_the_pixel_limit_is_inclusive_and_names_both_numbers(name: str) -> None:
    """An image of exactly the limit passes, and one pixel more is refused with both numbers."""
    pixels = HEIGHT * WIDTH
    decode_image(_samples()[name], pixels)
    with pytest.raises(TooLargeError) as caught:
        decode_image(_samples()[name], pixels - 1)
    assert caught.value.code == "request.image-pixels"
    assert f"= {pixels} pixels" in caught.value.message
    assert f"at most {pixels - 1}" in caught.value.message


def _png_header(content: bytes, width: int, height: int) -> bytes:
    body = struct.pack(">II", width, height) + content[24:29]
    return content[:8] + _chunk(b"IHDR", body) + content[33:]


def _gif_header(content: bytes, width: int, height: int) -> bytes:
    return content[:6] + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + content[10:]


def _bmp_header(content: bytes, width: int, height: int) -> bytes:
    return content[:18] + struct.pack("<ii", width, height) + content[26:]


def _webp_header(content: bytes, width: int, height: int) -> bytes:
    return content[:26] + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF) + content[30:]


def _jpeg_header(content: bytes, width: int, height: int) -> bytes:
    start = content.index(b"\xff\xc0") + 5
    sides = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    return content[:start] + sides + content[start + 4 :]


def _tiff_header(content: bytes, width: int, height: int) -> bytes:
    for tag, side in ((256, width), (257, height)):
        start = content.index(struct.pack("<HHI", tag, 4, 1))
        content = content[: start + 8] + struct.pack("<I", side) + content[start + 12 :]
    return content


@pytest.mark.parametrize("side", [10_000, 16_000, 60_000])
@pytest.mark.parametrize(
    ("name", "rewrite"),
    [
        ("png-RGB", _png_header),
        ("gif", _gif_header),
        ("bmp-RGB", _bmp_header),
        ("webp", _webp_header),
        ("jpeg", _jpeg_header),
        ("jpeg-CMYK", _jpeg_header),
        ("tiff-raw", _tiff_header),
        ("tiff-tiff_lzw", _tiff_header),
    ],
)
def test_a_header_that_declares_too_much_is_refused(
    name: str, rewrite: Callable[[bytes, int, int], bytes], side: int
) -> None:
    """An image bomb fails by its header with our error, also beyond Pillow's own two limits."""
    content = _samples()[name]
    if name.startswith("tiff"):
        # Short tags hold no such side, so they are first written as long ones.
        for tag in (256, 257):
            content = content.replace(
                struct.pack("<HHI", tag, 3, 1), struct.pack("<HHI", tag, 4, 1)
            )
    with pytest.raises(TooLargeError) as caught:
        decode_image(rewrite(content, side, side), 2**26)
    assert caught.value.code == "request.image-pixels"
    assert str(2**26) in caught.value.message


def test_a_gif_frame_beyond_its_screen_is_refused() -> None:
    """A GIF that grows by its first frame is measured with it, before its area is allocated."""
    content = _samples()["gif-animated"]
    frame = content.index(b"\x2c\0\0\0\0" + struct.pack("<HH", WIDTH, HEIGHT))
    grown = content[: frame + 5] + struct.pack("<HH", 9000, 9000) + content[frame + 9 :]
    with pytest.raises(TooLargeError, match="9000 x 9000"):
        decode_image(grown, 2**26)
    assert _FirstFrame(BytesIO(grown)).dispose is None


def test_a_huge_tile_is_refused() -> None:
    """A TIFF of four pixels may not make the decoder unpack a tile of a billion."""
    tags = {256: 2, 257: 2, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: 32768, 323: 32768, 324: 200, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    content = content.ljust(200, b"\0") + zlib.compress(bytes(10**5))
    with pytest.raises(TooLargeError, match="a tile of the image has 32768 x 32768"):
        decode_image(content, MANY)


def _with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    content = _samples()["jpeg-progressive"]
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[start:end] * count + content[end:]


def test_a_jpeg_of_many_scans_is_refused() -> None:
    """Scans that cost much more to decode than to send are counted, and refused."""
    decode_image(_with_scans(50), MANY)
    with pytest.raises(InvalidRequestError, match="more than 100 scans"):
        decode_image(_with_scans(100), MANY)


def test_bytes_that_look_like_scans_do_not_count() -> None:
    """Start-of-scan bytes inside metadata, or behind the picture, are no scans."""
    content = _samples()["jpeg"]
    comment = b"\xff\xfe" + (2 + 400).to_bytes(2) + b"\xff\xda" * 200
    noisy = content[:2] + comment + content[2:] + b"\xff\xda" * 200
    np.testing.assert_array_equal(decode_image(noisy, MANY), decode_image(content, MANY))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0", b"hello", b"<svg/>", b"%PDF-1.7", b"P6 1 1 255\n\0\0\0"),
        *(b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0", b"\x89PNG\r\n\x1a\n"),
        *(b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8 " + bytes(14)),
        b"\0\0\0\x0cjP  \r\n\x87\n",
    ],
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    """Empty values, other files and bare signatures are invalid requests, with a sentence."""
    with pytest.raises(InvalidRequestError) as caught:
        decode_image(content, MANY)
    assert caught.value.code == "request.image"
    assert "image" in caught.value.message
    assert caught.value.hint


def test_numbers_of_unknown_range_are_refused() -> None:
    """A TIFF of 32-bit floats has no agreed white, and is not guessed at."""
    content = _encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(InvalidRequestError, match="range is not known"):
        decode_image(content, MANY)


@pytest.mark.parametrize("name", _samples())
@given(data=st.data())
def test_truncated_images_are_refused(name: str, data: st.DataObject) -> None:
    """An image that lacks its second half is refused, wherever it was cut."""
    content = _samples()[name]
    cut = data.draw(st.integers(0, len(content) // 2))
    if name == "tiff-pages":  # the first page may be whole before half of the file
        cut //= 2
    with pytest.raises(InvalidRequestError):
        decode_image(content[:cut], MANY)


@pytest.mark.parametrize("name", _samples())
@given(data=st.data())
def test_damaged_images_decode_or_are_refused(name: str, data: st.DataObject) -> None:
    """Whatever bytes are changed, inserted or removed, no other exception and no warning leaves."""
    content = bytearray(_samples()[name])
    place = st.one_of(st.integers(0, 60), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        start, length = data.draw(place), data.draw(st.integers(0, 4))
        content[start : start + length] = data.draw(st.binary(max_size=4))
    _decodes_or_refuses(bytes(content))


@given(st.sampled_from([*_samples().values(), b""]), st.integers(0, 40), st.binary(max_size=300))
def test_random_bytes_decode_or_are_refused(sample: bytes, kept: int, rest: bytes) -> None:
    """Random bytes, alone or behind a real file's first bytes, never raise anything else."""
    _decodes_or_refuses(sample[:kept] + rest)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"iCCP", b"zTXt", b"iTXt", b"cHRM", b"eXIf", b"acTL", b"fcTL", b"tRNS"]
            ),
            st.binary(max_size=30),
        )
    ),
    st.sampled_from([b"IDAT", b"IEND"]),
)
def test_odd_png_chunks_decode_or_are_refused(
    chunks: list[tuple[bytes, bytes]], before: bytes
) -> None:
    """Chunks with sound checksums and senseless bodies, before or behind the pixels, do no harm."""
    content = _samples()["png-P"]
    place = content.index(before) - 4
    odd = b"".join(_chunk(kind, body) for kind, body in chunks)
    _decodes_or_refuses(content[:place] + odd + content[place:])


def test_pillow_does_not_warn_and_its_limit_stays() -> None:
    """What Pillow would warn about stays silent, from many threads, and its settings untouched."""
    content = _samples()["png-RGB"]
    odd = content[:33] + _chunk(b"acTL", bytes(8)) + content[33:]
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(BytesIO(odd)).load()
    settings = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    results: list[Pixels] = []

    def decode() -> None:
        results.extend(decode_image(odd, MANY) for _ in range(20))

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert settings == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
