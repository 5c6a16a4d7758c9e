"""Models to draw with and to judge with, and the bundles that they are kept in."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from armchair.core.device import resolve_device
from armchair.core.errors import BundleError, UsageError
from armchair.pipelines.bundle import Bundle, open_bundle
from armchair.pipelines.bundle_search import find_bundle

if TYPE_CHECKING:
    from armchair.pipelines.clip import CLIP

_CLASSES = {"dalle1": "DALLE1", "dalle2": "DALLE2", "clip": "CLIP"}  # each in a module of its kind
DRAWING = ("dalle1", "dalle2")
"""The kinds of model that draw pictures from prompts."""


def load(
    name: str,
    *,
    device: str = "auto",
    kinds: Sequence[str] | None = None,
    field: str = "model",
) -> Any:
    """Load a model.

    Args:
        name: A shipped model, a bundle's folder, or a Hugging Face repository "owner/name".
        device: auto, cpu, cuda, or cuda:N.
        kinds: Kinds of model that will do; any if not given.
        field: What the name was given as, for errors.

    Returns:
        A `DALLE1`, a `DALLE2` or a `CLIP`, as its bundle says.

    Raises:
        UnknownNameError: There is no such model.
        BundleError: It is damaged or unsafe.
        UsageError: There is no such device, or the model is of another kind.
    """
    where = resolve_device(device)
    bundle = open_bundle(find_bundle(name, field=field))
    if kinds is not None and bundle.kind not in kinds:
        raise UsageError(
            f"the kind of the model {name}",
            got=bundle.kind,
            expected=" or ".join(kinds),
            hint="`armchair models` lists models with their kinds",
        )
    return load_bundle(bundle, where)


def load_bundle(bundle: Bundle, device: torch.device) -> Any:
    """Load the model of an open bundle; see `load`."""
    if bundle.kind not in _CLASSES:
        expected = "one of " + ", ".join(_CLASSES)
        raise BundleError(f"{bundle.path}: kind", got=bundle.kind, expected=expected)
    module = importlib.import_module(f"armchair.pipelines.{bundle.kind}")
    return getattr(module, _CLASSES[bundle.kind]).load(bundle, device)


def load_clip(name: str, *, device: str = "auto", field: str = "model") -> CLIP:
    """Load a CLIP, or that of a DALL·E 2.

    Args:
        name: As for `load`.
        device: auto, cpu, cuda, or cuda:N.
        field: As for `load`.

    Raises:
        UnknownNameError: There is no such model.
        BundleError: It is damaged or unsafe.
        UsageError: There is no such device, or the model has no CLIP.
    """
    model = load(name, device=device, kinds=("clip", "dalle2"), field=field)
    clip: CLIP | None = model.clip if hasattr(model, "clip") else model
    if clip is None:
        hint = "a GLIDE and a DDPM have none; `armchair models` lists models with their kinds"
        raise UsageError(f"the CLIP of the model {name}", got=None, expected="one", hint=hint)
    return clip
