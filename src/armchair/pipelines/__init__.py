"""Models to draw with, and the bundles that they are kept in."""

from __future__ import annotations

from armchair.core.device import resolve_device
from armchair.core.errors import BundleError
from armchair.pipelines.bundle import find_bundle, open_bundle
from armchair.pipelines.dalle1 import DALLE1

_KINDS = {"dalle1": DALLE1}


def load(name: str, *, device: str = "auto") -> DALLE1:
    """Load a model.

    Args:
        name: A shipped model, a bundle's folder, or a Hugging Face repository "owner/name".
        device: auto, cpu, cuda, or cuda:N.

    Raises:
        UnknownNameError: There is no such model.
        BundleError: It is damaged or unsafe.
        UsageError: There is no such device.
    """
    where = resolve_device(device)
    bundle = open_bundle(find_bundle(name))
    if bundle.kind not in _KINDS:
        expected = "one of " + ", ".join(_KINDS)
        raise BundleError(f"{bundle.path}: kind", got=bundle.kind, expected=expected)
    return _KINDS[bundle.kind].load(bundle, where)
