"""Command-line options from dataclasses, read by tyro, with our errors and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from armchair.core.errors import UsageError

Options = TypeVar("Options")


def read_options(
    kind: type[Options], words: Sequence[str], *, verb: str, default: Any = None
) -> Options:
    """Read a verb's options; bad ones end the program with exit code 2 and a suggestion.

    Args:
        kind: A dataclass whose fields are the options.
        words: What follows the verb on the command line.
        verb: Its name, for the help.
        default: Values that are used where none are given.
    """
    extra = {} if default is None else {"default": default}
    try:
        return tyro.cli(
            kind,
            args=list(words),
            prog=f"armchair {verb}",
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
            **extra,
        )
    except SystemExit as stop:
        if stop.code:
            print(f"hint: `armchair {verb} --help` lists the options", file=sys.stderr)
        raise


def named_clip(name: str | None) -> str:
    """The CLIP that is to rank candidates.

    Raises:
        UsageError: None was named.
    """
    if name is None:
        hint = "`armchair train clip-scenes --out runs/clip` makes one: --clip runs/clip/bundle"
        raise UsageError("clip", got=None, expected="a CLIP to rank the candidates", hint=hint)
    return name
