"""Reads a picture of a scene back into what it shows, without a neural network.

    reading = SceneReader().read(pixels)
    reading.pairs                        (("armchair", "avocado"),)
    judge(prompt, reading)["all"]        is it what the prompt asked for?

It finds the background in the picture's frame, the one or two figures that stand out from it, and
the object, material, and place that explain each best (`scene_fit`). Then it doubts: it draws the
scene that it has read and compares that with the picture, and what is not borne out is None.

How the limits were chosen: between what fresh renderings reach, half of them of held-out pairs,
and what faulty pictures do not stay under. Of 300 pictures a row (`benchmarks/scene_reader.py`):

                                                                      64 px   128 px
    all attributes read right      renderings                          100%     100%
                                   blurred by 1 pixel                   99%     100%
                                   tinted, softened, noisy             100%     100%
                                   saved as JPEG of quality 40          91%     100%
    still taken for the scene      half of the figure erased             0%       0%
                                   a quarter of it erased               12%       9%
                                   another object mixed in               0%       0%
                                   random colours                      0.3%     0.3%
                                   another material's outer colour       0%       0%
                                   another material's inner colour       3%       3%
                                   another material's trim              40%      40%
                                   another material's pattern            7%       7%
                                   no pattern                            0%       0%

Where the reading of a good picture fails, it is None and hardly ever another name. The trim is its
blind spot: a fault in a tenth of a figure's area passes, since blur does as much damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from armchair.core.errors import DataError
from armchair.data.scenes import BACKGROUNDS, Prompt, Scene, Stated, draw
from armchair.data.scenes.backgrounds import BACKGROUND_COLOURS
from armchair.data.scenes.world import OPPOSITE, Relation, Size
from armchair.evaluation.scene_fit import WORKING_SIZE, Box, FigureFitter, Fit

ATTRIBUTES = ("object", "material", "background", "size", "relation")

_NOMINAL = {
    name: np.asarray(colour, dtype=np.float32) for name, colour in BACKGROUND_COLOURS.items()
}

_FRAME = 2  # pixels at the edge in which only background is expected
_MAX_BACKGROUND_SHIFT = 24.0  # levels (Euclidean) from the nominal colour; two are 49 apart
_MIN_PLAIN_FRAME = 0.85  # share of the frame within _CONTRAST of its median colour
_CONTRAST = 45.0  # levels by which a figure stands out, or a colour is another
_PATTERN_CONTRAST = 30.0  # levels that a pattern changes, where it counts as shown
_EXTENTS = (0.33, 0.9)  # of a figure's longest side, in units of the picture's side
_LARGE = 0.585  # extents above are large: midway between the largest small and smallest large
_MAX_GAP = 0.3  # between two figures: pixels across over those of the thickest place
_MIN_SHARE = 0.03  # of the pixels that stand out; less, set apart, is dirt and no figure

_MAX_WRONG_SHAPE = 0.1  # share of a figure's area
_MAX_WRONG_COLOUR = 0.13  # share of a figure's area
_MAX_WRONG_PATTERN = 0.6  # share of what the pattern changes
_MAX_OBJECT_DOUBT = 0.66
_MAX_MATERIAL_DOUBT = 0.82


@dataclass(frozen=True)
class Reading:
    """What a picture shows; None for what could not be read.

    Attributes:
        pairs: (object, material) of each figure, from left to right or from top to bottom; the
            material is None where the shape is borne out and the colours are not. Empty if no
            figure is borne out.
        background: One of BACKGROUNDS.
        size: The size of a single object.
        relation: Where the first of two objects is, seen from the second.
    """

    pairs: tuple[tuple[str | None, str | None], ...] = ()
    background: str | None = None
    size: Size | None = None
    relation: Relation | None = None

    @property
    def unreadable(self) -> bool:
        """Whether no figure was recognised."""
        return not self.pairs


@dataclass(frozen=True)
class _Figure:
    """A fitted figure, and how much of it the picture does not bear out.

    Attributes:
        fit: The best candidate.
        wrong_shape: Pixels on which picture and candidate differ in being figure or background,
            over the candidate's area.
        wrong_colour: Pixels on which they differ in colour, over the candidate's area.
        wrong_pattern: Squared difference of picture and candidate, over that of the candidate and
            itself without its pattern, where the pattern shows: 1 for a picture without it.
    """

    fit: Fit
    wrong_shape: float
    wrong_colour: float
    wrong_pattern: float

    def read(self) -> tuple[str | None, str | None]:
        """The object and the material, as far as they are borne out."""
        object_, material = self.fit.pair
        if self.wrong_shape > _MAX_WRONG_SHAPE or self.fit.object_doubt > _MAX_OBJECT_DOUBT:
            return None, None
        is_wrong = (
            self.wrong_colour > _MAX_WRONG_COLOUR
            or self.wrong_pattern > _MAX_WRONG_PATTERN
            or self.fit.material_doubt > _MAX_MATERIAL_DOUBT
        )
        return object_, None if is_wrong else material


class SceneReader:
    """Reads pictures of scenes; not thread-safe while it meets a background for the first time."""

    def __init__(self) -> None:
        self._fitter = FigureFitter()

    def read(self, pixels: UInt8[np.ndarray, "H W 3"]) -> Reading:
        """Read a picture.

        Args:
            pixels: 8-bit RGB, square, at least 64 pixels along a side.

        Raises:
            DataError: If the picture is not square or too small.
        """
        height, width, _ = pixels.shape
        if height != width or height < WORKING_SIZE:
            expected = f"a square picture of at least {WORKING_SIZE} pixels along a side"
            raise DataError("pixels", got=f"{height} x {width}", expected=expected)
        picture = Image.fromarray(pixels)
        if height != WORKING_SIZE:
            picture = picture.resize((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
        softened = _soften(np.asarray(picture, dtype=np.float32))
        background, colour = _find_background(softened)
        if background is None:
            return Reading()
        foreground = _distance(softened, colour) > _CONTRAST
        explanations = [
            self._explain(picture, softened, colour, background, boxes)
            for boxes in _ways_to_divide(foreground)
        ]
        if not explanations:
            return Reading(background=background)
        best = min(explanations, key=lambda figures: max(part.wrong_colour for part in figures))
        return _reading(best, background)

    def _explain(
        self,
        picture: Image.Image,
        softened: Float[np.ndarray, "H W 3"],
        colour: Float[np.ndarray, "3"],
        background: str,
        boxes: list[Box],
    ) -> list[_Figure]:
        """Fit a figure to each box, draw them all, and compare with the picture."""
        fits = [self._fitter.fit(picture, box, background) for box in boxes]
        places = tuple(fit.place for fit in fits)
        scene = Scene(tuple(fit.pair for fit in fits), background, None, None, places)
        expected, plain = (
            _soften(draw(scene, WORKING_SIZE, patterns=patterns).astype(np.float32))
            for patterns in (True, False)
        )
        expected_figure = _distance(expected, _NOMINAL[background]) > _CONTRAST
        figure = _distance(softened, colour) > _CONTRAST
        wrong_shape = (figure & ~_grown(expected_figure)) | (expected_figure & ~_grown(figure))
        wrong_colour = _far_from(softened, expected) | _far_from(expected, softened)
        by_pattern = _distance(expected, plain)
        by_pattern[by_pattern < _PATTERN_CONTRAST] = 0
        wrong_pattern = np.where(by_pattern > 0, _distance(softened, expected), 0)

        columns, rows = np.meshgrid(np.arange(WORKING_SIZE) + 0.5, np.arange(WORKING_SIZE) + 0.5)
        middles = [
            np.hypot(columns - place.x * WORKING_SIZE, rows - place.y * WORKING_SIZE)
            for place in places
        ]
        nearest = np.argmin(middles, axis=0)  # H W
        figures = []
        for index, fit in enumerate(fits):
            mine = nearest == index
            area = max(1, int((expected_figure & mine).sum()))
            figures.append(
                _Figure(
                    fit,
                    wrong_shape=(wrong_shape & mine).sum() / area,
                    wrong_colour=(wrong_colour & mine).sum() / area,
                    wrong_pattern=_square_sum(wrong_pattern[mine])
                    / max(1.0, _square_sum(by_pattern[mine])),
                )
            )
        return figures


def judge(prompt: Prompt, reading: Reading) -> dict[str, bool | None]:
    """Compare what was read with what was asked for.

    Args:
        prompt: What was asked for.
        reading: What was read from the picture that was drawn for it.

    Returns:
        For each of ATTRIBUTES whether it is as stated, None if the prompt does not state it; and
        "all": whether none is false. "object" wants the stated number of figures with all their
        objects, "material" the stated material on each of them, and "relation" the stated objects
        on their stated sides.
    """
    stated = prompt.stated
    result: dict[str, bool | None] = dict.fromkeys(ATTRIBUTES)
    if stated.background is not None:
        result["background"] = reading.background == stated.background
    if stated.size is not None:
        result["size"] = reading.size == stated.size
    verdicts = [(False, False, False)]
    if len(reading.pairs) == len(stated.pairs):
        for order in permutations(range(len(reading.pairs))):
            matched = list(
                zip([reading.pairs[place] for place in order], stated.pairs, strict=True)
            )
            objects = all(found[0] == wanted[0] for found, wanted in matched)
            materials = all(found[1] == wanted[1] for found, wanted in matched)
            relation = reading.relation
            if relation is not None and order[0] > 0:
                relation = OPPOSITE[relation]
            verdicts.append((objects, materials, objects and relation == stated.relation))
    result["object"], result["material"], related = max(verdicts)
    if stated.relation is not None:
        result["relation"] = related
    result["all"] = all(verdict is not False for verdict in result.values())
    return result


def is_right(scene: Scene, reading: Reading) -> bool:
    """Whether all that there is in a scene was read from a picture of it."""
    stated = Stated(scene.pairs, scene.background, scene.size, scene.relation)
    return bool(judge(Prompt("", stated, scene), reading)["all"])


def _reading(figures: list[_Figure], background: str) -> Reading:
    """What the figures that best explain a picture say."""
    pairs = [figure.read() for figure in figures]
    if all(object_ is None for object_, _ in pairs):
        return Reading(background=background)
    places = [figure.fit.place for figure in figures]
    if len(figures) == 1:
        size: Size = "large" if places[0].extent > _LARGE else "small"
        return Reading(tuple(pairs), background, size=size)
    right, down = places[1].x - places[0].x, places[1].y - places[0].y
    if (right if abs(right) > abs(down) else down) < 0:
        pairs.reverse()
    relation: Relation = "left of" if abs(right) > abs(down) else "above"
    known = all(object_ is not None for object_, _ in pairs)
    return Reading(tuple(pairs), background, relation=relation if known else None)


def _find_background(
    softened: Float[np.ndarray, "H W 3"],
) -> tuple[str | None, Float[np.ndarray, "3"]]:
    """The background's name and its colour as it is in this picture."""
    inside = np.zeros(softened.shape[:2], dtype=bool)
    inside[_FRAME:-_FRAME, _FRAME:-_FRAME] = True
    frame = softened[~inside]  # pixels 3
    colour = np.median(frame, axis=0)
    plain = (_distance(frame, colour) < _CONTRAST).mean()
    shifts = _distance(np.stack(list(_NOMINAL.values())), colour)
    nearest = int(shifts.argmin())
    if plain < _MIN_PLAIN_FRAME or shifts[nearest] > _MAX_BACKGROUND_SHIFT:
        return None, colour
    return BACKGROUNDS[nearest], colour


def _ways_to_divide(foreground: Bool[np.ndarray, "H W"]) -> list[list[Box]]:
    """Boxes around what stands out: as one figure, and as two beside or above each other."""
    cleaned = _without_dirt(_without_dirt(foreground).T).T
    ways = [[cleaned]]
    for mask, is_turned in ((cleaned, False), (cleaned.T, True)):
        cut = _gap(mask)
        if cut is not None:
            first, second = mask.copy(), mask.copy()
            first[:, cut:], second[:, : cut + 1] = False, False
            ways.append([first.T, second.T] if is_turned else [first, second])
    boxes = [[_box(mask) for mask in way if mask.any()] for way in ways]
    side = WORKING_SIZE
    return [
        way
        for way in boxes
        if way and all(_EXTENTS[0] <= box.longest_side / side <= _EXTENTS[1] for box in way)
    ]


def _without_dirt(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The mask without runs of columns, between empty columns, that hold next to nothing."""
    profile = mask.sum(axis=0)
    runs = np.cumsum(np.diff(profile > 0, prepend=False))  # a number for every run, full or empty
    masses = np.bincount(runs, weights=profile)
    return mask & (masses >= _MIN_SHARE * profile.sum())[runs]


def _gap(mask: Bool[np.ndarray, "H W"]) -> int | None:
    """The emptiest column near the middle of the mask, None if no column there is empty enough."""
    profile = mask.sum(axis=0)
    filled = np.flatnonzero(profile)
    if len(filled) == 0:
        return None
    left, right = filled[0], filled[-1]
    start, stop = int(left + 0.3 * (right - left)), int(left + 0.7 * (right - left)) + 1
    from_middle = np.abs(np.arange(start, stop) - (left + right) / 2)
    cut = start + int((profile[start:stop] + 0.01 * from_middle).argmin())
    return cut if profile[cut] <= _MAX_GAP * profile.max() else None


def _box(mask: Bool[np.ndarray, "H W"]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _distance(
    colours: Float[np.ndarray, "*S 3"], other: Float[np.ndarray, "*#S 3"]
) -> Float[np.ndarray, "*S"]:
    return np.sqrt(np.square(colours - other).sum(axis=-1))


def _square_sum(values: Float[np.ndarray, "N"]) -> float:
    return float(np.square(values).sum())


def _soften(picture: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """Blur a little (1 2 1 along each axis), so that sharp and soft pictures compare."""
    framed = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = (framed[:-2] + 2 * framed[1:-1] + framed[2:]) / 4
    return (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 4


def _neighbourhood(picture: np.ndarray) -> list[np.ndarray]:
    """The picture shifted by up to one pixel each way, nine times."""
    height, width = picture.shape[:2]
    framed = np.pad(picture, ((1, 1), (1, 1)) + ((0, 0),) * (picture.ndim - 2), mode="edge")
    return [
        framed[row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]


def _grown(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The mask and every pixel next to it."""
    return np.logical_or.reduce(_neighbourhood(mask))


def _far_from(
    picture: Float[np.ndarray, "H W 3"], other: Float[np.ndarray, "H W 3"]
) -> Bool[np.ndarray, "H W"]:
    """Pixels whose colour the other picture does not have there or next to it."""
    nearest = np.minimum.reduce([_distance(picture, shifted) for shifted in _neighbourhood(other)])
    return nearest > _CONTRAST
