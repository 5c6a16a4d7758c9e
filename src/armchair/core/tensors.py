"""Named tensors on disk: safetensors, never pickles."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from armchair.core.files import atomic_path


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors to `path` as safetensors, atomically.

    Raises:
        OutputError: The disk is full or read-only; what was there before stays.
    """
    with atomic_path(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise _cause(error) from error


def _cause(error: SafetensorError) -> OSError:
    """What the operating system said, which safetensors passes on as text."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else 0
    return OSError(number, os.strerror(number)) if number else OSError(str(error))
