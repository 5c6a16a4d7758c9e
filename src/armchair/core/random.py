"""Random numbers that depend on what they are for, never on what was drawn before.

Every stream is keyed by a purpose and integers such as (seed, epoch) or (seed, sample index).
A resumed run therefore draws what the unbroken run would have drawn, and picture k does not
depend on the batch that it was drawn in.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def fold(purpose: str, *keys: int) -> int:
    """Hash a purpose and integers to a 63-bit seed, the same on every machine.

    Args:
        purpose: What the numbers are for; two purposes never share a stream.
        keys: Integers of any size and sign, such as a seed and an index.

    Returns:
        An integer in [0, 2**63).
    """
    text = purpose + "".join(f"/{int(key)}" for key in keys)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(purpose: str, *keys: int) -> np.random.Generator:
    """A numpy generator for one purpose and its keys; see `fold`."""
    return np.random.Generator(np.random.PCG64(fold(purpose, *keys)))


def torch_generator(
    purpose: str, *keys: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on `device` for one purpose and its keys; see `fold`."""
    return torch.Generator(device=device).manual_seed(fold(purpose, *keys))


def permutation(length: int, *keys: int) -> np.ndarray:
    """A shuffled order of `length` items, a pure function of its keys (seed, epoch).

    Returns:
        int64 array of shape (length,).
    """
    return numpy_generator("permutation", *keys).permutation(length)
