"""The backgrounds: plain colours, apart from each other and from what objects are made of."""

from __future__ import annotations

from armchair.data.scenes.materials import Colour

BACKGROUND_COLOURS: dict[str, Colour] = {
    "white": (250, 250, 250),
    "gray": (184, 186, 192),
    "black": (24, 24, 30),
    "pink": (255, 190, 210),
    "yellow": (255, 238, 168),
    "blue": (156, 206, 250),
    "purple": (196, 166, 236),
    "green": (186, 232, 178),
}
BACKGROUNDS = tuple(BACKGROUND_COLOURS)
