"""Captions of scenes: many wordings of one scene, each knowing what it states.

    describe(scene, generator).text     "a small avocado armchair on a pink background"
    captions(scene, 8, generator)       eight different wordings

The object and its material are always stated, and so is the relation between two objects, from
either side ("A left of B" or "B right of A"); size and background are sometimes left out. Of one
scene's captions, those that name two objects in reading order come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from armchair.data.scenes.materials import PALETTES
from armchair.data.scenes.world import OPPOSITE, Pair, Relation, Scene, Size, pick

MAX_CAPTIONS = 32  # different wordings that every scene is sure to have

_SHARE_WITH_SIZE = 0.6
_SHARE_WITH_BACKGROUND = 0.75
_SHARE_WITH_BACKGROUND_FIRST = 0.25
_SHARE_WITH_OPENING = 0.2
_SHARE_AS_SENTENCE = 0.25

_THINGS = (
    "{material} {object}",
    "{object} made of {material}",
    "{object} in the shape of {likeness}",
    "{object} made out of {material}",
    "{object} that looks like {likeness}",
    "{object} imitating {likeness}",
)
_NUM_SHORT_THINGS = 3  # of _THINGS, for captions that name two
_OPENINGS = ("a picture of", "a drawing of")
_BEFORE_BACKGROUND = (
    "{content} on {background}",
    "{content} against {background}",
    "{content} in front of {background}",
)
_BACKGROUND_FIRST = "{background} with {content}"
_RELATED: dict[Relation, tuple[str, ...]] = {
    "left of": (
        "{first} to the left of {second}",
        "{first} left of {second}",
        "{second} with {first} to its left",
        "{first} on the left and {second} on the right",
    ),
    "right of": (
        "{first} to the right of {second}",
        "{first} right of {second}",
        "{second} with {first} to its right",
        "{first} on the right and {second} on the left",
    ),
    "above": (
        "{first} above {second}",
        "{first} over {second}",
        "{second} with {first} above it",
        "{first} at the top and {second} at the bottom",
    ),
    "below": (
        "{first} below {second}",
        "{first} under {second}",
        "{second} with {first} below it",
        "{first} at the bottom and {second} at the top",
    ),
}
_READING_ORDER: tuple[Relation, ...] = ("left of", "above")  # the first comes first


@dataclass(frozen=True)
class Stated:
    """What a text says of a scene; None for what it does not say.

    Attributes:
        pairs: The (object, material) of each object it names.
        background: The background's colour.
        size: The size of a single object.
        relation: Where the first of two objects is, seen from the second.
    """

    pairs: tuple[Pair, ...]
    background: str | None = None
    size: Size | None = None
    relation: Relation | None = None

    def is_true_of(self, scene: Scene) -> bool:
        """Whether a scene is as stated; two objects may be told from either side."""
        told = {(scene.pairs, scene.relation)}
        if scene.relation is not None:
            told.add((scene.pairs[::-1], OPPOSITE[scene.relation]))
        return (
            (self.pairs, self.relation) in told
            and self.background in (None, scene.background)
            and self.size in (None, scene.size)
        )


@dataclass(frozen=True)
class Prompt:
    """A text about a scene.

    Attributes:
        text: The words.
        stated: What they state.
        scene: A scene of which they are true.
    """

    text: str
    stated: Stated
    scene: Scene


def describe(
    scene: Scene, generator: np.random.Generator, *, in_reading_order: bool | None = None
) -> Prompt:
    """Put a scene into words, drawn by lot.

    Args:
        scene: What to describe.
        generator: Where the choice of words comes from.
        in_reading_order: Of two objects, name the left or the upper one first; False for the
            other one, None to draw lots.
    """
    share = generator.random(12).tolist()
    size = scene.size if share[0] < _SHARE_WITH_SIZE else None
    background = scene.background if share[1] < _SHARE_WITH_BACKGROUND else None
    if scene.relation is None:
        content = _thing(scene.pairs[0], size, pick(_THINGS, share[2]))
    else:
        content = _two_things(scene.pairs, scene.relation, share[2:6], in_reading_order)
    background_first = share[6] < _SHARE_WITH_BACKGROUND_FIRST and " with " not in content
    if scene.relation is None and not background_first and share[7] < _SHARE_WITH_OPENING:
        content = f"{pick(_OPENINGS, share[8])} {content}"
    if background is None:
        text = content
    else:
        template = _BACKGROUND_FIRST if background_first else pick(_BEFORE_BACKGROUND, share[9])
        text = template.format(content=content, background=with_article(f"{background} background"))
    if share[10] < _SHARE_AS_SENTENCE:
        text = f"{text[0].upper()}{text[1:]}."
    return Prompt(text, Stated(scene.pairs, background, size, scene.relation), scene)


def captions(scene: Scene, count: int, generator: np.random.Generator) -> list[str]:
    """Different wordings of one scene, the plainer ones first.

    Args:
        scene: What to describe.
        count: How many, 1 to MAX_CAPTIONS. The first half, rounded up, names two objects in reading
            order, the left or the upper one first; the rest names them the other way about.
        generator: Where the choice of words comes from.

    Raises:
        ValueError: If `count` is out of range.
    """
    if not 1 <= count <= MAX_CAPTIONS:
        raise ValueError(f"count: got {count}, expected 1 to {MAX_CAPTIONS}")
    texts: dict[str, None] = {}
    while len(texts) < count:
        in_reading_order = 2 * len(texts) < count
        texts[describe(scene, generator, in_reading_order=in_reading_order).text] = None
    return list(texts)


def with_article(noun: str) -> str:
    """The noun after "a" or "an"; every word of the scenes goes by its first letter."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _thing(pair: Pair, size: Size | None, template: str) -> str:
    object_, material = pair
    noun = template.format(object=object_, material=material, likeness=PALETTES[material].likeness)
    return with_article(noun if size is None else f"{size} {noun}")


def _two_things(
    pairs: tuple[Pair, ...],
    relation: Relation,
    share: Sequence[float],
    in_reading_order: bool | None,
) -> str:
    """Two objects and their relation, told from either of them."""
    templates = _THINGS[:_NUM_SHORT_THINGS]
    first, second = (
        _thing(pair, None, pick(templates, choice))
        for pair, choice in zip(pairs, share[:2], strict=True)
    )
    from_the_other = share[2] < 0.5
    if in_reading_order is not None:
        names_first_first = pick(_RELATED[relation], share[3]).startswith("{first}")
        is_in_order = names_first_first == (relation in _READING_ORDER)
        from_the_other = is_in_order != in_reading_order
    if from_the_other:
        first, second, relation = second, first, OPPOSITE[relation]
    return pick(_RELATED[relation], share[3]).format(first=first, second=second)
