"""What bounds a caption, whether it is typed or read from a file."""

from __future__ import annotations

MAX_CAPTION_CHARACTERS = 10_000


def first_invalid_character(text: str) -> int | None:
    """Where a text has what no encoding can write, a lone surrogate; None if it has none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None
