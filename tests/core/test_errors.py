import inspect
import pickle

import pytest

from armchair.core import errors
from armchair.core.errors import ArmchairError, ConfigError, UnknownNameError, UsageError

TREE = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, ArmchairError)
]


def test_a_message_reads_field_got_expected_hint() -> None:
    error = ConfigError("dim", got=255, expected="a multiple of num_heads = 8", hint="try 256")
    assert str(error) == "dim: got 255, expected a multiple of num_heads = 8\nhint: try 256"
    assert (error.field, error.hint) == ("dim", "try 256")


def test_parts_may_be_left_out() -> None:
    assert str(ArmchairError("the disk is full")) == "the disk is full"
    assert str(ArmchairError("dim", got=None)) == "dim: got None"
    assert str(ArmchairError("dim", expected="8")) == "dim: expected 8"
    assert str(ArmchairError("full", hint="free some")) == "full\nhint: free some"


def test_long_values_are_shortened() -> None:
    assert len(str(ConfigError("text", got="x" * 10_000))) < 150


def test_a_near_name_is_suggested() -> None:
    error = UnknownNameError("recipe", "sceens", ["scenes", "dalle1-paper"])
    assert str(error) == (
        "recipe: got 'sceens', expected one of dalle1-paper, scenes\nhint: did you mean 'scenes'?"
    )
    far = UnknownNameError("recipe", "zzz", ["scenes"])
    assert far.hint == "`armchair train --help` lists what there is"


@pytest.mark.parametrize("kind", TREE)
def test_exit_codes(kind: type[ArmchairError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1)


def test_the_drawing_of_the_tree_is_complete() -> None:
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in TREE)
    assert len(TREE) == 10


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("dim", got=255, expected="256", hint="try 256"),
        UnknownNameError("recipe", "sceens", ["scenes"]),
    ],
)
def test_errors_cross_process_borders(error: ArmchairError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert (again.field, again.hint) == (error.field, error.hint)
