"""The one tree of errors, and how each reads.

    ArmchairError           exit code 1: the work failed
    ├── UsageError          exit code 2: what was asked for cannot be asked for
    │   ├── ConfigError     a field of a configuration is out of range
    │   └── UnknownNameError  no recipe, model, or option has this name
    ├── DataError           pictures or captions cannot be used
    ├── BundleError         a model on disk is missing, altered, foreign, or unsafe
    ├── CheckpointError     a training checkpoint cannot be used
    ├── TrainingError       a run cannot go on (a non-finite loss, say)
    ├── SamplingError       drawing cannot go on (a non-finite prediction, say)
    └── OutputError         a result cannot be written

A message names the field, what was got, and what was expected, and ends with a hint:

    raise ConfigError("dim", got=255, expected="a multiple of num_heads = 8", hint="try 256")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

_ABSENT = object()
_MAX_GOT = 120  # characters of an offending value that a message repeats
_LISTED_BY = {
    "command": "armchair --help",
    "recipe": "armchair train --help",
    **dict.fromkeys(
        ("model", "clip", "start_from", "clip_from", "autoencoder_from"), "armchair models"
    ),
}


class ArmchairError(Exception):
    """An error that a person is meant to read.

    Args:
        field: What the message is about: a field's name, a path, or a whole sentence.
        got: The offending value, shown shortened; left out if not given.
        expected: What would have been accepted.
        hint: What to do about it; the kind's usual hint if not given.
    """

    exit_code = 1
    usual_hint: ClassVar[str | None] = None

    def __init__(
        self,
        field: str,
        *,
        got: object = _ABSENT,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        hint = hint or self.usual_hint
        parts = []
        if got is not _ABSENT:
            shown = repr(got)
            parts.append("got " + (shown if len(shown) <= _MAX_GOT else shown[:_MAX_GOT] + "…"))
        if expected is not None:
            parts.append(f"expected {expected}")
        message = f"{field}: {', '.join(parts)}" if parts else field
        self.field = field
        self.hint = hint
        super().__init__(f"{message}\nhint: {hint}" if hint else message)

    def within(self, part: str) -> ArmchairError:
        """The same, said of a field of a part of what its reader knows."""
        error = _revived(type(self), f"{part}.{self.args[0]}")
        error.field, error.hint = f"{part}.{self.field}", self.hint
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it says, whatever a subclass is made from."""
        return _revived, (type(self), *self.args), vars(self)


def _revived(kind: type[ArmchairError], *args: Any) -> ArmchairError:
    return kind.__new__(kind, *args)


class UsageError(ArmchairError):
    """What was asked for cannot be asked for."""

    exit_code = 2


class ConfigError(UsageError):
    """A field of a configuration is out of range or contradicts another."""


class UnknownNameError(UsageError):
    """Nothing of this kind has this name; the nearest one is suggested, or where to find them all.

    Args:
        kind: What was looked up, such as "recipe".
        name: The name that was not found.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = None
        if near:
            hint = f"did you mean {near[0]!r}?"
        elif kind in _LISTED_BY:
            hint = f"`{_LISTED_BY[kind]}` lists what there is"
        super().__init__(kind, got=name, expected="one of " + ", ".join(names), hint=hint)


class DataError(ArmchairError):
    """Pictures or captions cannot be used."""


class BundleError(ArmchairError):
    """A model on disk is missing, altered, foreign, or unsafe to read."""

    usual_hint = "copy or download it again"


class CheckpointError(ArmchairError):
    """A training checkpoint cannot be used."""


class TrainingError(ArmchairError):
    """A training run cannot go on."""


class SamplingError(ArmchairError):
    """Drawing cannot go on."""


class OutputError(ArmchairError):
    """A result cannot be written."""
