"""Make a folder of captioned pictures from a colour-emoji font: real drawings to train on.

    sudo apt-get install fonts-noto-color-emoji
    python examples/emoji.py --out emoji

About 1,350 drawings, 136x136 on white, each beside a .txt that says its Unicode name: "a red
apple". Train on them with `--data folder:emoji`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import tyro
from PIL import Image, ImageDraw, ImageFont

from armchair.core.errors import ArmchairError, DataError, UsageError
from armchair.core.files import make_folder, output_error

NOTO = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE, WIDTH, HEIGHT = 109, 136, 128  # the one size of Noto's bitmaps
CHARACTERS = (*range(0xA9, 0x3300), *range(0x1F000, 0x1FB00))
REGIONAL_LETTERS = range(0x1F1E6, 0x1F200)  # halves of flags
PAINTED = {"square", "circle", "flag", "heart", "hair", "flower", "cross"}  # truly black or white


def caption(name: str) -> str:
    """Turn a Unicode name into words: "BLACK SUN WITH RAYS" into "a sun with rays"."""
    words = name.lower().removeprefix("emoji component ").split()
    jargon = {"heavy", "negative", "ornament"}
    if words[-1] not in PAINTED or "heavy" in words:
        jargon |= {"black", "white"}  # in most names they mean filled and outlined
    text = " ".join(word for word in words if word not in jargon)
    head = re.split(r" (?:with|of|in|on|and|for|over|without|pointing) ", text)[0]
    if re.search(r"[^siu]s$", head):
        return text  # several things
    return ("an " if re.match(r"(?!uni|eu|one)[aeiou]|hour|x-", text) else "a ") + text


def drawings(font: ImageFont.FreeTypeFont) -> Iterator[tuple[int, str, Image.Image]]:
    """The code point, Unicode name, and picture of each emoji that the font holds."""
    for code in CHARACTERS:
        character = chr(code)
        name = unicodedata.name(character, "")
        is_part = code in REGIONAL_LETTERS or unicodedata.category(character) in ("Me", "Sk")
        if not name or is_part or font.getlength(character) == 0:
            continue
        picture = Image.new("RGB", (WIDTH, WIDTH), "white")
        draw = ImageDraw.Draw(picture)
        draw.text((0, (WIDTH - HEIGHT) // 2), character, font=font, embedded_color=True)
        if picture.getextrema() != ((255, 255),) * 3:
            yield code, name, picture


def open_font(path: Path) -> ImageFont.FreeTypeFont:
    """Open a font of bitmaps, or say how to get one."""
    hint = "apt-get install fonts-noto-color-emoji, or give --font another NotoColorEmoji.ttf"
    if not path.is_file():
        raise UsageError(f"no font at {path}", hint=hint)
    try:
        return ImageFont.truetype(path, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataError(
            f"{path} has no bitmaps of size {FONT_SIZE} ({error})", hint=hint
        ) from error


def main(out: Path, font: Path = NOTO) -> None:
    """Write the drawings and their captions.

    Args:
        out: Folder to write to.
        font: A colour-emoji font of bitmaps.
    """
    opened = open_font(font)
    make_folder(out)
    count = 0
    try:
        for code, name, picture in drawings(opened):
            picture.save(out / f"{code:05x}.png")
            (out / f"{code:05x}.txt").write_text(caption(name) + "\n", encoding="utf-8")
            count += 1
    except OSError as error:
        raise output_error(out, error) from error
    if not count:
        raise DataError(f"{font} holds no colour emoji")
    print(f"{count} pictures in {out}; train on them with --data folder:{out}")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ArmchairError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
