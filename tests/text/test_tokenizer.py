import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armchair.core.captions import MAX_CAPTION_CHARACTERS
from armchair.core.errors import BundleError, ConfigError, DataError, OutputError, UsageError
from armchair.text.tokenizer import Tokenizer, TokenizerConfig

CAPTIONS = [
    "an armchair in the shape of an avocado",
    "A teapot made of cheese to the left of a kiwi clock",
    "a pink background with a small avocado armchair",
    "A lamp in the shape of a strawberry on a blue background",
] * 4
CONFIG = TokenizerConfig(vocab_size=320, context_length=24)
TOKENIZER = Tokenizer.train(CAPTIONS, CONFIG)

visible_text = st.text(alphabet=st.characters(exclude_categories=["Cs"])).filter(str.strip)


@given(visible_text)
@settings(deadline=None, max_examples=300)
def test_any_unicode_comes_back_but_for_case(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text.lower()


@given(visible_text, st.floats(0, 1), st.integers(0, 2**32))
@settings(deadline=None)
def test_any_unicode_comes_back_under_dropout(text: str, dropout: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    tokens = TOKENIZER.encode(text, dropout=dropout, generator=generator)
    assert TOKENIZER.decode(tokens) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "  two  blanks  ",
        "tab\tand\nline\r\n",
        "avocado🥑",
        "ÄÖÜ ß ΟΔΟΣ İstanbul",
        "🏳️‍🌈",
        "</w>",
        "\0",
    ],
)
def test_awkward_texts_come_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text.lower()


def test_case_does_not_matter() -> None:
    assert TOKENIZER.encode("An ARMCHAIR") == TOKENIZER.encode("an armchair")


def test_frequent_words_are_one_token_wherever_they_stand() -> None:
    tokens = TOKENIZER.encode("a background a")
    assert TOKENIZER.encode("a background")[1:] == tokens[1:-1]
    assert len(TOKENIZER.encode("background")) == 1


def test_paper_recipe_has_the_paper_sizes() -> None:
    config = TokenizerConfig()
    assert (config.vocab_size, config.context_length, config.dropout) == (16_384, 256, 0.1)
    assert Tokenizer(config, []).num_text_tokens == 16_640


def test_same_generator_gives_the_same_dropout() -> None:
    first, again, other = (
        [
            TOKENIZER.encode(caption, dropout=0.3, generator=generator)
            for generator in [np.random.default_rng(seed)]
            for caption in CAPTIONS
        ]
        for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_dropout_needs_a_generator() -> None:
    with pytest.raises(UsageError, match="generator"):
        TOKENIZER.encode("a mug", dropout=0.1)


def test_training_does_not_depend_on_the_order_of_captions() -> None:
    again = Tokenizer.train(reversed(CAPTIONS), CONFIG)
    assert again.table.merges == TOKENIZER.table.merges


def test_small_corpus_gives_fewer_merges_but_the_same_model_sizes() -> None:
    tokenizer = Tokenizer.train(["ab ab"], TokenizerConfig(vocab_size=1000, context_length=8))
    assert len(tokenizer.table.tokens) == 258
    assert tokenizer.num_text_tokens == 1008


def test_padding_is_one_token_per_position() -> None:
    batch = TOKENIZER.encode_batch(["an armchair", CAPTIONS[1]])
    tokens = TOKENIZER.encode("an armchair")
    assert batch.shape == (2, 24)
    assert batch.dtype == np.int64
    assert batch[0].tolist() == tokens + [320 + i for i in range(len(tokens), 24)]
    assert TOKENIZER.decode(batch[0]) == "an armchair"
    assert batch.max() < TOKENIZER.num_text_tokens
    assert TOKENIZER.padding.tolist() == list(range(320, 344))


def test_empty_batch_has_no_rows() -> None:
    assert TOKENIZER.encode_batch([]).shape == (0, 24)


def with_context(length: int) -> Tokenizer:
    config = dataclasses.replace(CONFIG, context_length=length)
    return Tokenizer(config, TOKENIZER.table.merges)


def test_caption_that_is_too_long_is_named_or_cut() -> None:
    long = "an armchair " * 30
    number = len(TOKENIZER.encode(long))
    with pytest.raises(UsageError) as caught:
        TOKENIZER.encode_batch(["a mug", long])
    message = str(caught.value)
    assert "'an armchair an armchair" in message
    assert f"got {number}, expected at most 24" in message
    assert "--truncate" in message
    batch = TOKENIZER.encode_batch(["a mug", long], truncate=True)
    assert batch[1].tolist() == TOKENIZER.encode(long)[:24]


def test_dropout_never_makes_a_caption_too_long() -> None:
    words = "an armchair in the shape of an avocado"
    tight = with_context(len(TOKENIZER.encode(words)))
    generator = np.random.default_rng(0)
    for _ in range(50):
        for truncate in (False, True):
            batch = tight.encode_batch([words], truncate, dropout=0.5, generator=generator)
            assert TOKENIZER.decode(batch[0]) == words


def test_cut_character_is_shown_as_such() -> None:
    tokens = with_context(2).encode_batch(["🥑"], truncate=True)[0]
    assert TOKENIZER.decode(tokens) == "\ufffd"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"caption: got .*\nhint: say what to draw"):
        TOKENIZER.encode(text)


def test_absurdly_long_caption_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match=f"got 100000, expected at most {MAX_CAPTION_CHARACTERS}"):
        TOKENIZER.encode("a" * 100_000)
    assert TOKENIZER.encode("ab" * (MAX_CAPTION_CHARACTERS // 2))


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(UsageError, match="character 2 is no valid Unicode"):
        TOKENIZER.encode("a \ud800")


@pytest.mark.parametrize("token", [-1, 319, 344, 10**9])
def test_unknown_token_is_refused(token: int) -> None:
    tokenizer = Tokenizer(CONFIG, [])
    with pytest.raises(UsageError, match="text token: got"):
        tokenizer.decode([token])


def test_no_captions_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="got 0"):
        Tokenizer.train([], CONFIG)


@pytest.mark.parametrize("caption", ["", "x" * 20_000, "\udc80"])
def test_bad_caption_to_train_on_is_a_usage_error(caption: str) -> None:
    with pytest.raises(UsageError, match="caption"):
        Tokenizer.train([*CAPTIONS, caption], CONFIG)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 255),
        ("vocab_size", 10**9),
        ("context_length", 0),
        ("dropout", -0.1),
        ("dropout", 1.5),
        ("dropout", float("nan")),
    ],
)
def test_config_is_checked(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: got"):
        TokenizerConfig(**{field: value})


def test_more_merges_than_the_vocabulary_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 257, expected at most vocab_size = 256"):
        Tokenizer(TokenizerConfig(vocab_size=256), [(97, 98)])


def test_saved_tokenizer_loads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "tokenizer.json"
    TOKENIZER.save(path)
    loaded = Tokenizer.load(path)
    assert loaded.config == TOKENIZER.config
    for caption in [*CAPTIONS, "🥑 Überraschung"]:
        assert loaded.encode(caption) == TOKENIZER.encode(caption)


def test_tokenizer_travels_to_data_workers() -> None:
    copy = pickle.loads(pickle.dumps(TOKENIZER))
    assert copy.encode(CAPTIONS[0]) == TOKENIZER.encode(CAPTIONS[0])


def test_saving_where_a_file_stands_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        TOKENIZER.save(tmp_path / "file" / "tokenizer.json")


def edit(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(key, value)


CONFIG_AS_SAVED = {"vocab_size": 320, "context_length": 24, "dropout": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("format", "gpt2"), "not a tokenizer file"),
        (edit("version", 2), "version: got 2, expected 1"),
        (edit("config", None), "config"),
        (edit("config", CONFIG_AS_SAVED | {"color": 1}), "config"),
        (edit("config", CONFIG_AS_SAVED | {"vocab_size": "320"}), "config"),
        (edit("config", CONFIG_AS_SAVED | {"vocab_size": 10**12}), "vocab_size"),
        (edit("config", CONFIG_AS_SAVED | {"vocab_size": 260}), "at most vocab_size = 260"),
        (edit("config", CONFIG_AS_SAVED | {"dropout": None}), "config: got"),
        (edit("merges", None), "merges"),
        (edit("merges", [[97]]), "merges"),
        (edit("merges", [[97, "98"]]), "merges"),
        (edit("merges", [[97, True]]), "merges"),
        (edit("merges", [[97, 300]]), r"merges\[0\]"),
    ],
)
def test_altered_file_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=re.escape(str(path)) + ".*" + message):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b"null", b"9" * 5000, b'{"merges": []}'],
)
def test_corrupt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(str(path))):
        Tokenizer.load(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(BundleError):
        Tokenizer.load(tmp_path)
