"""What the documentation says can be followed: links lead somewhere, and commands can be given."""

import ast
import importlib
import re
import shlex
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch

from armchair.cli.main import VERBS
from armchair.cli.options import read_options
from armchair.cli.train import TrainOptions
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.bundle_search import shipped_bundles
from armchair.pipelines.dalle1 import DALLE1
from armchair.recipes import build_recipe
from armchair.text.tokenizer import Tokenizer, TokenizerConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks() -> list[tuple[str, str, str]]:
    """Every fenced block: page, language, content."""
    return [(p.name, *match) for p in PAGES for match in FENCE.findall(p.read_text("utf-8"))]


def commands(program: str) -> list[list[str]]:
    """Every call of a program in the fenced blocks, once, without the program."""
    found: dict[tuple[str, ...], None] = {}
    for _, language, block in blocks():
        if language not in ("", "sh", "bash", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if not re.search(rf"(?:^|[|&;/ ]){program} ", line):
                continue
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            call: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|&;<>"):
                    if call and Path(call[0]).name == program:
                        found[tuple(call[1:])] = None
                    call = [] if word not in ("<", ">") else ["(a file)"]
                else:
                    call.append(word)
    return [list(call) for call in found]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_exist(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if target.suffix == ".png" and "dalle1-scenes" not in shipped_bundles():
            continue  # some are drawn by this model, and it is not there yet
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("words", commands("armchair"), ids=" ".join)
def test_command_can_be_given(words: list[str]) -> None:
    verb, *rest = words
    assert verb in VERBS
    try:
        if verb == "train":
            default = TrainOptions(out=Path("runs"), recipe=build_recipe(rest[0]))
            read_options(TrainOptions, rest[1:], verb=verb, default=default)
        else:
            module = importlib.import_module(f"armchair.cli.{verb}")
            (kind,) = [
                value
                for value in vars(module).values()
                if is_dataclass(value) and getattr(value, "__module__", "") == module.__name__
            ]
            read_options(kind, rest, verb=verb)  # type: ignore[arg-type]
    except SystemExit as stop:
        assert stop.code == 0, "see what was printed"  # noqa: PT017 - --help ends with 0


def test_scripts_and_targets_exist() -> None:
    for words in [*commands("python"), *commands("python3")]:
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), words
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands("make"):
        assert words[0] in targets, words


def test_options_named_in_the_text_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, *words in (
        ["train", "scenes"],
        ["train", "clip-scenes"],
        ["generate"],
        ["train", "dalle2-scenes"],
        ["vary"],
        ["interpolate"],
        ["edit"],
        ["redraw"],
        ["rank"],
        ["evaluate"],
        ["info"],
        ["scenes"],
    ):
        with pytest.raises(SystemExit):
            importlib.import_module(f"armchair.cli.{verb}").run([*words, "--help"])
    known = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out)) | {"--debug"}
    for page in PAGES:
        text = FENCE.sub("", page.read_text("utf-8"))
        spans = [span for span in re.findall(r"`([^`]+)`", text) if span.startswith("--")]
        named = {option for span in spans for option in re.findall(r"--[a-z][\w.-]*", span)}
        assert named <= known, page.name


def test_python_blocks_are_python() -> None:
    for page, language, block in blocks():
        if language == "python":
            ast.parse(block, filename=page)


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code of the figures can be imported."""
    monkeypatch.syspath_prepend(DOCS)
    return DOCS


def test_masks_are_drawn_on_a_toy(drawing: Path) -> None:
    masks = importlib.import_module("drawing.masks")
    figure = masks.draw_masks(grid_size=3, text_length=2, conv_kernel=3, token=4)
    of_token = [axes.collections[0].get_array().reshape(3, 3).tolist() for axes in figure.axes[:4]]
    assert of_token == [
        [[2, 2, 2], [2, 3, 0], [0, 0, 0]],  # full
        [[0, 2, 2], [2, 3, 0], [0, 0, 0]],  # row
        [[0, 2, 0], [0, 3, 0], [0, 0, 0]],  # column
        [[2, 2, 2], [2, 3, 0], [0, 0, 0]],  # convolution
    ]


def test_every_figure_on_a_page_has_its_drawing(drawing: Path) -> None:
    figures = importlib.import_module("figures")
    named = {
        Path(link).stem
        for page in DOCS.glob("*.md")
        for link in LINK.findall(page.read_text("utf-8"))
        if link.startswith("figures/")
    }
    assert named == figures.FIGURES.keys() | figures.MODEL_FIGURES.keys()


def test_the_figure_of_the_speed_shows_each_row_of_the_bench(drawing: Path) -> None:
    speed = importlib.import_module("drawing.speed")
    figure = speed.draw_speed()
    ticks = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert ticks == ["1 picture", "8", "32", "1 picture", "8", "shape A", "shape B", "discrete VAE"]
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown == set(speed.GROUPS)


def test_attention_of_an_untrained_model(drawing: Path) -> None:
    model_figures = importlib.import_module("drawing.model")
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=256, context_length=24), [])
    autoencoder = VQVAE(VQVAEConfig(image_size=32, codebook_size=16, codebook_dim=8, width=8))
    config = TextToImageConfig(
        text_vocab_size=256, text_length=24, image_vocab_size=16, grid_size=4,
        dim=16, num_layers=2, num_heads=2,
    )  # fmt: skip
    model = DALLE1(tokenizer, autoencoder, TextToImageTransformer(config).eval())
    shown = model_figures.example(model)
    shares = model_figures.text_attention(model, shown.text, shown.codes)
    assert shares.shape == (16, 24)
    # Small weights make attention even: the first code is predicted from 24 text tokens alone,
    # the second from them and one code.
    torch.testing.assert_close(shares[0], torch.full((24,), 1 / 24), atol=1e-3, rtol=0)
    torch.testing.assert_close(shares[1], torch.full((24,), 1 / 25), atol=1e-3, rtol=0)
    assert model_figures.words_of(model, "an armchair")[0] == ("an", [0, 1, 2])
    assert len(model_figures.draw_attention(model).axes) > 2
