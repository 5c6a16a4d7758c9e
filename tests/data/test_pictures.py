import contextlib
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from armchair.core.errors import DataError
from armchair.data.pictures import decode_picture, to_rgb

RED = (200, 30, 30)
WHITE = [255, 255, 255]
GRADIENT = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


def encode(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


PHOTO = encode(Image.effect_noise((64, 48), 50).convert("RGB"), "JPEG")
DRAWING = encode(Image.effect_noise((32, 32), 50).convert("RGB"))


def test_rgb_comes_back_exactly(tmp_path: Path) -> None:
    data = encode(Image.fromarray(GRADIENT))
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        pixels = decode_picture(source)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        assert np.array_equal(pixels, GRADIENT)


# How a camera stores the upright picture under each orientation of the EXIF standard.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_is_undone(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](GRADIENT)))
    assert np.array_equal(decode_picture(encode(stored, exif=exif)), GRADIENT)


def half_clear(mode: str) -> Image.Image:
    """Red or grey on the left, clear on the right."""
    picture = Image.new("RGBA", (4, 4), (*RED, 255))
    picture.paste((0, 0, 0, 0), (2, 0, 4, 4))
    return picture.convert(mode)


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_alpha_is_laid_on_white(mode: str, format: str) -> None:
    pixels = decode_picture(encode(half_clear(mode), format, lossless=True))
    assert pixels[0, 0].tolist() == list(half_clear(mode).convert("RGB").getpixel((0, 0)))
    assert pixels[0, 3].tolist() == WHITE


def test_half_transparent_is_half_white() -> None:
    pixels = decode_picture(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
    assert pixels[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_transparent_palette_entry_is_white(transparency: int | bytes) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    pixels = decode_picture(encode(picture, transparency=transparency))
    assert pixels[0].tolist() == [list(RED), WHITE]
    assert decode_picture(encode(picture))[0].tolist() == [list(RED), [0, 0, 255]]


def test_transparent_colour_is_white() -> None:
    assert decode_picture(encode(Image.new("RGB", (1, 1), RED), transparency=RED)).min() == 255


@pytest.mark.parametrize(("mode", "plain"), [("La", "LA"), ("RGBa", "RGBA")])
def test_colours_times_alpha_are_laid_on_white_too(mode: str, plain: str) -> None:
    picture = half_clear(plain)
    expected = to_rgb(picture).astype(int)
    assert np.abs(to_rgb(picture.convert(mode)) - expected).max() <= 2


@pytest.mark.parametrize(
    ("mode", "colour", "grey"), [("L", 77, 77), ("1", 1, 255), ("I;16", 257 * 77, 77)]
)
def test_grey_becomes_three_channels(mode: str, colour: int, grey: int) -> None:
    pixels = decode_picture(encode(Image.new(mode, (3, 2), colour)))
    assert pixels.shape == (2, 3, 3)
    assert (pixels == grey).all()


def test_16_bit_colours_and_alpha_become_8_bit() -> None:
    for kind, samples in ((2, [257 * v for v in RED]), (6, [257 * v for v in RED] + [65_535])):
        pixels = decode_picture(png_16_bit(kind, samples))
        assert pixels[0, 0].tolist() == list(RED)
    assert decode_picture(png_16_bit(6, [0, 0, 0, 0]))[0, 0].tolist() == WHITE
    assert decode_picture(png_16_bit(4, [257 * 77, 65_535]))[0, 0].tolist() == [77] * 3


def png_16_bit(kind: int, samples: list[int]) -> bytes:
    """One pixel, as Pillow does not write it: grey or colours of 16 bits, with or without alpha."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(samples)}H", *samples)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None]
    for format in ("PNG", "TIFF", "PPM"):
        pixels = decode_picture(encode(Image.fromarray(ramp), format))
        assert pixels[0, :, 0].tolist() == list(range(256))


def test_transparent_16_bit_grey_is_white() -> None:
    data = encode(Image.fromarray(np.array([[0, 300]], np.uint16)))
    chunk = b"tRNS" + struct.pack(">H", 300)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    at = data.index(b"IDAT") - 4
    assert decode_picture(data[:at] + chunk + data[at:])[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted(format: str) -> None:
    pixels = decode_picture(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format))
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_a_moving_picture_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    assert (decode_picture(data) == [255, 0, 0]).all()


def test_floating_point_is_refused() -> None:
    with pytest.raises(DataError, match="pixel format not supported: got 'F'"):
        decode_picture(encode(Image.new("F", (4, 4)), "TIFF"))


def test_32_bit_values_beyond_16_bits_are_refused() -> None:
    picture = Image.fromarray(np.array([[70_000]], np.int32))
    with pytest.raises(DataError, match="16 bits at most"):
        decode_picture(encode(picture, "TIFF"))


def test_too_small_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        decode_picture(DRAWING, min_size=33)
    assert caught.value.field == "picture too small"
    assert "got '32x32', expected at least 33 pixels" in str(caught.value)
    assert decode_picture(DRAWING, min_size=32).shape == (32, 32, 3)


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header claims to be large."""
    header = b"IHDR" + struct.pack(">II", width, height) + DRAWING[24:29]
    return DRAWING[:12] + header + struct.pack(">I", zlib.crc32(header)) + DRAWING[33:]


@pytest.mark.parametrize("side", [9_500, 10_000, 30_000, 2**31 - 1])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_decompression_bomb_is_refused_unread(side: int, action: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # pyright: ignore[reportArgumentType]
        with pytest.raises(DataError, match=r"picture too large: .*expected at most 89478485"):
            decode_picture(bomb(side, side))


def test_bound_on_pixels_can_be_lowered() -> None:
    with pytest.raises(DataError, match="got '32x32', expected at most 1000 pixels"):
        decode_picture(DRAWING, max_pixels=1000)


def test_pillow_is_left_as_it_was() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode_picture(PHOTO)
    with pytest.raises(DataError):
        decode_picture(bomb(9_500, 9_500))
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    assert after == before


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF"],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not a picture of a known format"):
        decode_picture(data)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(DataError, match="file cannot be opened"):
            decode_picture(path)


@pytest.mark.parametrize("data", [PHOTO, DRAWING])
def test_truncated_picture_is_refused(data: bytes) -> None:
    for length in range(40, len(data) - 20, 97):
        with pytest.raises(DataError):
            decode_picture(data[:length])


@given(data=st.sampled_from([PHOTO, DRAWING]), place=st.floats(0, 1), noise=st.binary(max_size=20))
@settings(deadline=None, max_examples=200)
def test_damage_gives_a_picture_or_a_data_error(data: bytes, place: float, noise: bytes) -> None:
    at = int(place * (len(data) - len(noise)))
    damaged = data[:at] + noise + data[at + len(noise) :]
    with contextlib.suppress(DataError):
        assert decode_picture(damaged, max_pixels=10**6).dtype == np.uint8
