"""The DALL·E family as real software.

import armchair

model = armchair.load("dalle1-scenes")
pictures = model.generate("an armchair in the shape of an avocado", count=9, seed=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armchair.core.errors import ArmchairError
    from armchair.pipelines import load, load_clip
    from armchair.pipelines.clip import CLIP
    from armchair.pipelines.dalle1 import DALLE1
    from armchair.pipelines.dalle2 import DALLE2

__all__ = ["CLIP", "DALLE1", "DALLE2", "ArmchairError", "load", "load_clip"]

_HOMES = {
    "ArmchairError": "armchair.core.errors",
    "CLIP": "armchair.pipelines.clip",
    "DALLE1": "armchair.pipelines.dalle1",
    "DALLE2": "armchair.pipelines.dalle2",
    "load": "armchair.pipelines",
    "load_clip": "armchair.pipelines",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import armchair` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'armchair' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
