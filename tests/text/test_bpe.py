import threading
from collections import Counter
from collections.abc import Iterator
from itertools import repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from armchair.core.errors import ConfigError
from armchair.text import bpe
from armchair.text.bpe import (
    MAX_TOKEN_BYTES,
    NUM_BYTES,
    MergeTable,
    draw_drops,
    learn_merges,
    merge_history,
    spell,
    split_words,
)

TEXTBOOK = {"old": 7, "older": 3, "finest": 9, "lowest": 4}
CORPUS = [
    "an armchair in the shape of an avocado",
    "a small avocado armchair on a pink background, drawn twice",
    "the old clock is older than the oldest lamp",
    "ein süßer großer lehnstuhl — größer",
    "a guitar-shaped lamp ... and 2 mugs",
] * 3


def library_encoder(table: MergeTable) -> Tokenizer:
    """The library's encoder over the same merges, each byte written as a latin-1 character."""
    spelled = [token.decode("latin-1") for token in table.tokens]
    vocab = {token: index for index, token in enumerate(spelled)}
    merges = [(spelled[left], spelled[right]) for left, right in table.merges]
    library = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    library.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\u0100")
    return library


TABLE = MergeTable(learn_merges((text + " " for text in CORPUS), vocab_size=400))
LIBRARY = library_encoder(TABLE)


def test_textbook_corpus_reaches_est_and_old_with_their_counts() -> None:
    counts = {spell(merge.token): merge.count for merge in merge_history(TEXTBOOK, num_merges=5)}
    assert counts["est</w>"] == 13
    assert counts["old"] == 10


def test_library_reaches_the_same_merges_on_the_textbook_corpus() -> None:
    texts = [f"{word} " for word, count in TEXTBOOK.items() for _ in range(count)]
    table = MergeTable(learn_merges(texts, vocab_size=256 + 20))
    spelled = [spell(token) for token in table.tokens[256:]]
    assert spelled.index("est</w>") < 5
    assert spelled.index("old") < 5
    assert spelled == [spell(merge.token) for merge in merge_history(TEXTBOOK, num_merges=20)]


def test_library_and_textbook_learn_the_same_merges_of_a_corpus() -> None:
    history = merge_history(Counter(CORPUS), num_merges=144)
    ours = [(merge.left, merge.right) for merge in history]
    library = [(TABLE.tokens[left], TABLE.tokens[right]) for left, right in TABLE.merges]
    assert len(ours) > 100
    assert library == ours


def test_counts_of_the_history_never_rise() -> None:
    counts = [merge.count for merge in merge_history(Counter(CORPUS), num_merges=200)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 2


def test_pairs_that_occur_once_are_not_merged() -> None:
    assert merge_history({"abcdefg": 1}, num_merges=5) == []
    assert learn_merges(["abcdefg "], vocab_size=300) == []


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_words_joined_are_the_text(text: str) -> None:
    words = split_words(text)
    assert b"".join(words).decode() == text
    assert all(len(word) <= MAX_TOKEN_BYTES for word in words)


def test_words_keep_the_space_behind_them_and_punctuation_apart() -> None:
    assert split_words("A mug,  red ") == [b"A ", b"mug", b", ", b" ", b"red "]


@given(st.text(alphabet=st.sampled_from("abcdefghilmnoprstuvwß —-,. "), max_size=60))
@settings(deadline=None, max_examples=200)
def test_encoding_without_dropout_equals_the_library(text: str) -> None:
    words = split_words(text + " ")
    spelled = "\u0100".join(word.decode("latin-1") for word in words)
    expected = LIBRARY.encode(spelled).ids
    assert [token for word in words for token in TABLE.encode(word)] == expected
    never = repeat(False)
    assert [t for word in words for t in TABLE.encode_with_dropout(word, never)] == expected


def test_full_dropout_leaves_bytes() -> None:
    assert TABLE.encode_with_dropout(b"armchair ", repeat(True)) == list(b"armchair ")


def test_dropout_gives_many_spellings_of_one_word() -> None:
    drops = draw_drops(0.1, np.random.default_rng(0))
    spellings = {tuple(TABLE.encode_with_dropout(b"armchair ", drops)) for _ in range(300)}
    assert len(spellings) > 5
    for spelling in spellings:
        assert b"".join(TABLE.tokens[token] for token in spelling) == b"armchair "


def test_drops_come_at_the_rate_asked_for() -> None:
    drops = draw_drops(0.1, np.random.default_rng(1))
    assert np.mean([next(drops) for _ in range(20_000)]) == pytest.approx(0.1, abs=0.01)


def test_merges_that_spell_one_token_share_its_id() -> None:
    a, b, c = b"abc"
    table = MergeTable([(b, c), (a, 256), (a, b), (258, c)])
    assert table.tokens[256:] == [b"bc", b"abc", b"ab"]
    assert table.encode(b"abc") == (257,)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([(97, 256)], r"merges\[0\]: got \(97, 256\), expected a new pair of the tokens 0 to 255"),
        ([(-1, 97)], r"merges\[0\]"),
        ([(97, 98), (97, 98)], r"merges\[1\]"),
        ([(97, 97)] + [(256 + i, 256 + i) for i in range(20)], r"merges\[7\]: got 256, .* 129"),
    ],
)
def test_impossible_merges_are_refused(merges: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MergeTable(merges)


def test_tokens_are_spelled_for_people() -> None:
    assert spell(b"est ") == "est</w>"
    assert spell("ß".encode()) == "ß"
    assert spell(b"\xc3") == "\\xc3"


def test_the_corpus_is_read_where_ctrl_c_is_heard() -> None:
    """The library reads in a thread of its own, where no signal arrives."""
    read_by: set[threading.Thread] = set()

    def corpus() -> Iterator[str]:
        for _ in range(3):
            read_by.add(threading.current_thread())
            yield "old older "

    learn_merges(corpus(), NUM_BYTES + 4)
    assert read_by == {threading.main_thread()}


def test_words_that_are_more_than_the_library_is_given_at_once_are_all_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["old older ", "old old finest "] * 5
    expected = learn_merges(texts, NUM_BYTES + 8)
    monkeypatch.setattr(bpe, "_AT_ONCE", 2)
    assert learn_merges(texts, NUM_BYTES + 8) == expected
