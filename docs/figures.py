"""Draw the figures of the documentation: `python docs/figures.py` writes docs/figures/*.png.

Each figure calls the code that it explains, so that the two cannot disagree. The last ones look
into the shipped models and are left out where these are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from drawing.masks import draw_layers, draw_model_masks, draw_toy_masks
from drawing.model import draw_attention, draw_codebook, draw_tokens
from drawing.speed import draw_speed
from drawing.style import STYLE
from drawing.training import draw_merges, draw_relaxation, draw_schedules
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from armchair.core.images import contact_sheet
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.pipelines import load
from armchair.pipelines.bundle_search import shipped_bundles
from armchair.pipelines.dalle1 import DALLE1

FOLDER = Path(__file__).parent / "figures"
MODEL = "dalle1-scenes"
OTHER_MODEL = "dalle2-scenes"
PROMPT = "an armchair in the shape of an avocado"
SHOWN = (192, 192)  # pixels of each armchair

Drawing = Figure | Image.Image


def draw_scenes() -> Image.Image:
    """Scenes that training sees."""
    scenes = Scenes(ScenesConfig(num_pictures=24, size=96))
    return contact_sheet([Image.fromarray(scenes.pixels(i)) for i in range(24)], columns=8)


def draw_armchairs(model: DALLE1) -> Image.Image:
    """The armchairs of both models, nine by each, side by side."""
    squares = []
    for each in (model, load(OTHER_MODEL, device="cpu")):
        drawn = each.generate(PROMPT, count=9, seed=0)
        shown = [picture.resize(SHOWN, Image.Resampling.LANCZOS) for picture in drawn]
        squares.append(contact_sheet(shown, columns=3))
    return contact_sheet(squares, columns=2, margin=6)


FIGURES: dict[str, Callable[[], Drawing]] = {
    "scenes": draw_scenes,
    "merges": draw_merges,
    "relaxation": draw_relaxation,
    "schedules": draw_schedules,
    "masks-toy": draw_toy_masks,
    "masks": draw_model_masks,
    "layers": draw_layers,
    "speed": draw_speed,
}
MODEL_FIGURES: dict[str, Callable[[DALLE1], Drawing]] = {
    "tokens": draw_tokens,
    "codebook": draw_codebook,
    "attention": draw_attention,
    "armchairs": draw_armchairs,
}
"""Those that look into the shipped models."""


def save(drawing: Drawing, name: str) -> None:
    """Write a figure to docs/figures and say where it is."""
    path = FOLDER / f"{name}.png"
    if isinstance(drawing, Figure):
        drawing.savefig(path, metadata={"Software": None})  # the same bytes each time
    else:
        drawing.save(path)
    print(path)


def main() -> None:
    """Draw all figures that can be drawn."""
    FOLDER.mkdir(exist_ok=True)
    with rc_context(STYLE):
        for name, draw in FIGURES.items():
            save(draw(), name)
        missing = {MODEL, OTHER_MODEL} - set(shipped_bundles())
        if missing:
            names = ", ".join(MODEL_FIGURES)
            print(f"left out: {names}; they look into {', '.join(missing)}, which is not there")
            return
        model: DALLE1 = load(MODEL, device="cpu")
        for name, draw_model in MODEL_FIGURES.items():
            save(draw_model(model), name)


if __name__ == "__main__":
    main()
