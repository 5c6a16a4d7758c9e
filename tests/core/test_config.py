import json
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armchair.core.config import first_difference, from_dict, to_dict
from armchair.core.errors import ConfigError, UnknownNameError
from armchair.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Leaf:
    width: int
    gain: float = 0.5


@dataclass(frozen=True, kw_only=True)
class OtherLeaf:
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Tree:
    leaf: Leaf | OtherLeaf
    name: str = "oak"
    tall: bool = False
    shape: Literal["round", "pointed"] = "round"
    age: int | None = None
    size: tuple[int, float] = (1, 2.0)
    branches: tuple[Leaf, ...] = ()

    def __post_init__(self) -> None:
        if self.name == "weed":
            raise ConfigError("name", got=self.name, expected="a tree")


leaves = st.builds(Leaf, width=st.integers(), gain=st.floats(allow_nan=False, allow_infinity=False))
trees = st.builds(
    Tree,
    leaf=leaves | st.builds(OtherLeaf, depth=st.integers()),
    name=st.text().filter(lambda name: name != "weed"),
    tall=st.booleans(),
    shape=st.sampled_from(["round", "pointed"]),
    age=st.none() | st.integers(),
    size=st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    branches=st.lists(leaves, max_size=3).map(tuple),
)


@given(trees)
@settings(deadline=None)
def test_json_and_back_is_exact(tree: Tree) -> None:
    assert from_dict(Tree, json.loads(json.dumps(to_dict(tree)))) == tree


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert from_dict(type(recipe), json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_defaults_may_be_left_out() -> None:
    assert from_dict(Tree, {"leaf": {"type": "Leaf", "width": 3}}) == Tree(leaf=Leaf(width=3))


def test_unknown_key_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'width'") as caught:
        from_dict(Leaf, {"widht": 3})
    assert "config.widht" in str(caught.value)


OAK = {"type": "Leaf", "width": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "config: got"),
        ({}, "expected also leaf"),
        ({"type": "Bush", "leaf": OAK}, "config.type: got 'Bush', expected Tree"),
        ({"leaf": {"width": 1}}, "config.leaf.type: got ''"),
        ({"leaf": {"type": "Leaf"}}, "config.leaf: got .*expected also width"),
        ({"leaf": {"type": "Leef", "width": 1}}, "did you mean 'Leaf'"),
        ({"leaf": {"type": "Leaf", "width": 1.5}}, "config.leaf.width: got 1.5"),
        ({"leaf": {"type": "Leaf", "width": True}}, "config.leaf.width: got True"),
        ({"leaf": {"type": "Leaf", "width": 1, "gain": "1"}}, "config.leaf.gain: got '1'"),
        ({"leaf": {"type": "Leaf", "width": 1, "gain": False}}, "config.leaf.gain: got False"),
        ({"leaf": 3}, "config.leaf: got 3, expected Leaf or OtherLeaf"),
        ({"leaf": OAK, "name": 3}, "config.name: got 3, expected a str"),
        ({"leaf": OAK, "tall": 1}, "config.tall: got 1, expected a bool"),
        ({"leaf": OAK, "shape": "flat"}, "config.shape: got 'flat'"),
        ({"leaf": OAK, "age": "old"}, "config.age: got 'old', expected int or None"),
        ({"leaf": OAK, "size": [1]}, "config.size: got .*expected 2 items"),
        ({"leaf": OAK, "size": 1}, "config.size: got 1, expected a list"),
        ({"leaf": OAK, "branches": [OAK, {"type": "Leaf"}]}, r"config.branches\[1\]: got"),
        ({"leaf": OAK, "name": "weed"}, "config.name: got 'weed', expected a tree"),
    ],
)
def test_wrong_data_is_refused_where_it_stands(data: object, message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        from_dict(Tree, data)


def test_whole_numbers_are_numbers() -> None:
    built = from_dict(Leaf, {"width": 1, "gain": 2})
    assert built.gain == 2.0
    assert isinstance(built.gain, float)


def test_a_field_that_cannot_be_held_is_the_programmers_mistake() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd:
        thing: bytes

    with pytest.raises(TypeError, match=r"config\.thing"):
        from_dict(Odd, {"thing": 1})


def test_first_difference_names_the_path() -> None:
    one = Tree(leaf=Leaf(width=1), branches=(Leaf(width=2),))
    assert first_difference(to_dict(one), to_dict(one)) is None
    wider = replace(one, leaf=Leaf(width=9))
    assert first_difference(to_dict(one), to_dict(wider)) == ("leaf.width", 1, 9)
    assert first_difference({"a": 1}, {}) == ("a", 1, None)
    path, before, now = first_difference(to_dict(one), to_dict(replace(one, branches=()))) or ""
    assert (path, len(before), now) == ("branches", 1, [])


def test_a_number_that_json_cannot_hold_is_named() -> None:
    tree = Tree(leaf=Leaf(width=1), branches=(Leaf(width=2, gain=float("inf")),))
    with pytest.raises(ConfigError, match=r"config\.branches\.gain: got inf, expected a finite"):
        to_dict(tree)
