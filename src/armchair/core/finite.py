"""Numbers that are no numbers end the drawing, where they arise."""

from __future__ import annotations

from torch import Tensor

from armchair.core.errors import SamplingError


def check_finite(values: Tensor, what: str, *, hint: str | None = None) -> None:
    """Refuse values that are infinite or no number.

    Args:
        values: What was computed.
        what: What it is called.
        hint: What to do about it.

    Raises:
        SamplingError: There is one among them.
    """
    if not bool(values.isfinite().all()):
        got, expected = "a value that is not finite", "finite numbers"
        raise SamplingError(what, got=got, expected=expected, hint=hint)
