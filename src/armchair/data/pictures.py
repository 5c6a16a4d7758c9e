"""Any picture file to 8-bit RGB, or a reason why not.

    pixels = decode_picture(Path("photo.jpg"))   # upright, opaque, uint8 (H, W, 3)

The header is read first, so that a picture that would not fit in memory is refused before it is
decoded. Colour profiles are not applied: numbers are taken as sRGB.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from armchair.core.errors import DataError

MAX_PIXELS = 89_478_485  # where Pillow too begins to warn of decompression bombs

# Only formats that Pillow decodes itself and that bear a signature: EPS, for one, runs Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")

DECODED_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".bmp"}
    | {".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
)

_MULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # modes of colours times alpha, and without

OTHER_SUFFIXES = frozenset(  # pictures all the same: they are rejected by name, not overlooked
    {".heic", ".heif", ".jxl", ".svg", ".eps", ".psd", ".xcf", ".tga", ".ico"}
    | {".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"}
)


def decode_picture(
    source: Path | bytes, *, min_size: int = 1, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a picture: turned upright by its EXIF, laid on white, the first frame if it moves.

    Args:
        source: A file, or a file's bytes.
        min_size: The smallest side accepted, in pixels.
        max_pixels: The most pixels accepted.

    Returns:
        8-bit RGB, 0 to 255. 16-bit grey is scaled, not clipped.

    Raises:
        DataError: It cannot be opened or decoded, or is too small or too large. `field` is the
            reason alone, the same for every picture that has it.
    """
    try:
        file = BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_FORMATS) as image:
            _check_size(image.size, min_size, max_pixels)
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError("picture too large", expected=f"at most {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise DataError("not a picture of a known format") from error
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno:
            raise DataError("file cannot be opened", got=error.strerror) from error
        raise DataError("picture damaged or truncated", got=str(error)) from error


def _check_size(size: tuple[int, int], min_size: int, max_pixels: int) -> None:
    width, height = size
    shown = f"{width}x{height}"
    if width * height > max_pixels:
        raise DataError("picture too large", got=shown, expected=f"at most {max_pixels} pixels")
    if min(width, height) < min_size:
        expected = f"at least {min_size} pixels on each side"
        raise DataError("picture too small", got=shown, expected=expected)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of any mode as 8-bit RGB, laid on white where it is transparent.

    Raises:
        DataError: Its pixels are fractions, or of more than 16 bits.
    """
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise DataError("pixel format not supported", got="F", expected="whole numbers")
    if image.mode in _MULTIPLIED:
        image = image.convert(_MULTIPLIED[image.mode])
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))


def _from_16_bit(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise DataError("pixel format not supported", got=image.mode, expected="16 bits at most")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 65_535  # onto white
    grey = np.rint(values / 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
