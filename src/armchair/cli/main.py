"""The command `armchair`: one verb a file, loaded when it is called."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from armchair.core.errors import ArmchairError, UnknownNameError

VERBS = {
    "generate": "draw pictures from prompts",
    "vary": "draw variations of a picture",
    "interpolate": "draw the way from one picture to the next",
    "edit": "move a picture by the difference of two texts",
    "redraw": "draw a prompt over a picture, or over a part of it",
    "rank": "say which pictures fit a text best",
    "train": "train a recipe on scenes or on your own pictures",
    "evaluate": "measure a model on fresh scenes and prompts",
    "models": "list the models that are there",
    "info": "tell what a model is, was trained on, and scored",
    "plot": "draw the curves of a training run",
    "scenes": "write pictures and captions of the default data set",
}
"""What each verb does. Its code is the function `run` of the module of the same name."""

_BAD_USE = 2
_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


class _Notes(logging.Handler):
    """What the library has to say, on standard error, as of now: a bar may stand in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"armchair: {record.getMessage()}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those of this process if not given.

    Returns:
        The exit code: 0 for success, 2 for bad use, 1 for failure, 130 for an interruption.
    """
    _hear_notes()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except ArmchairError as error:
        if debug:
            traceback.print_exc()
        print(f"armchair: {error}", file=sys.stderr)
        if error.hint is None and error.exit_code == _BAD_USE:
            print(f"hint: `{_with_options(words)} --help` lists the options", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("armchair: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(f"armchair: {reason}\nhint: --debug shows where this happened", file=sys.stderr)
        return 1


def _hear_notes() -> None:
    log = logging.getLogger("armchair")
    if not any(isinstance(handler, _Notes) for handler in log.handlers):
        log.addHandler(_Notes())
        log.setLevel(logging.INFO)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else _BAD_USE
    if words[0] == "--version":
        from armchair.core.provenance import version

        print(version())
        return 0
    if words[0] not in VERBS:
        raise UnknownNameError("command", words[0], VERBS)
    module = importlib.import_module(f"armchair.cli.{words[0]}")
    module.run(words[1:])
    return 0


def _with_options(words: list[str]) -> str:
    """The part of a command whose help has the options; each recipe has options of its own."""
    named = words[0] == "train" and len(words) > 1 and not words[1].startswith("-")
    return " ".join(["armchair", *words[: 2 if named else 1]])


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: armchair COMMAND [OPTIONS]\n\n"
        "The DALL·E family: train it on your own captioned pictures, draw from it, measure it.\n\n"
        f"{verbs}\n\n"
        "armchair COMMAND --help tells the options of each; --debug shows where an error arose."
    )


def entry() -> None:
    """What the installed command calls."""
    sys.exit(main())
