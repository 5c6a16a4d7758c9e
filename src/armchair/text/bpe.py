"""Byte-pair encoding: the pairs of symbols that become tokens, and how they cut up a word.

A word is the UTF-8 bytes of a run of letters, together with the one space behind it. That space is
the end-of-word mark, which textbooks write `</w>`. The 256 bytes are the first 256 tokens, so every
text can be written; each merge joins two tokens, from the most frequent pair of the corpus on.

Merges are learned twice. `learn_merges` hands the corpus to the `tokenizers` library, which finds
16k merges in half a million captions in seconds. `merge_history` is the textbook's loop: it counts
every pair again after each merge, which is slow, but it can be read, it knows each merge's count,
and the tests hold the library to it.

    history = merge_history({"old": 7, "older": 3, "finest": 9, "lowest": 4}, num_merges=5)
    [(spell(merge.token), merge.count) for merge in history]   # ... ("est</w>", 13), ("old", 10)

Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016, §3.2;
the dropout is Provilkov et al., "BPE-Dropout", 2020, Algorithm 1.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from armchair.core.errors import ConfigError

NUM_BYTES = 256  # the tokens that need no merge
MAX_TOKEN_BYTES = 129  # 32 characters of up to four bytes, and the space

Pair = tuple[int, int]  # two token ids, left and right

# A merge never crosses from letters to punctuation or from word to word. Runs of more than 32
# characters are cut, so that one endless "word" cannot take quadratic time.
_PUNCTUATION = re.escape(string.punctuation)
_WORD = re.compile(
    rf"[^\s{_PUNCTUATION}]{{1,32}} ?"  # letters, digits, and whatever is not ASCII
    rf"|[{_PUNCTUATION}]{{1,32}} ?"
    r"|[^\S ]{1,32} ?"  # tabs, line ends, and other blanks
    r"| "
)
_SEPARATOR = "\u0100"  # parts the words given to the library; beyond the 256 that stand for bytes
_AT_ONCE = 10_000  # words given to the library as one text
_MIN_COUNT = 2  # a pair that occurs once teaches nothing
_MAX_CACHED_WORDS = 1 << 16


@dataclass(frozen=True)
class CountedMerge:
    """One merge and how often its pair stood in the corpus when it was chosen."""

    left: bytes
    right: bytes
    count: int

    @property
    def token(self) -> bytes:
        """The new token's bytes."""
        return self.left + self.right


def split_words(text: str) -> list[bytes]:
    """Cut a text into the words that are encoded one by one; joined, they are the text again.

    Args:
        text: Any text that can be written in UTF-8.

    Returns:
        The words' UTF-8 bytes, at most `MAX_TOKEN_BYTES` each.
    """
    return [word.encode() for word in _WORD.findall(text)]


def spell(token: bytes) -> str:
    r"""Write a token for people: `b"est "` as `est</w>`, a part of a character as `\xc3`."""
    return token.decode(errors="backslashreplace").replace(" ", "</w>")


def learn_merges(texts: Iterable[str], vocab_size: int) -> list[Pair]:
    """Learn merges with the `tokenizers` library.

    Args:
        texts: The corpus, each text ended by a space.
        vocab_size: Tokens to end with, the 256 bytes included; fewer if the corpus has no more
            pairs that occur twice.

    Returns:
        The merges, first to last.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(_SEPARATOR)  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_COUNT,
        initial_alphabet=[chr(byte) for byte in range(NUM_BYTES)],
        show_progress=False,
    )
    # Counted here, as Ctrl-C is not heard while the library reads.
    counts = Counter(word for text in texts for word in split_words(text))
    library.train_from_iterator(_repeated(counts), trainer=trainer)
    model = json.loads(library.to_str())["model"]
    ids: dict[str, int] = model["vocab"]
    return [(ids[left], ids[right]) for left, right in model["merges"]]


def _repeated(counts: Mapping[bytes, int]) -> Iterator[str]:
    """A corpus in which each word occurs as often as it was counted.

    The library merges characters: latin-1 gives each byte the character of the same number.
    """
    for word, count in counts.items():
        for start in range(0, count, _AT_ONCE):
            yield _SEPARATOR.join([word.decode("latin-1")] * min(_AT_ONCE, count - start))


def merge_history(word_counts: Mapping[str, int], num_merges: int) -> list[CountedMerge]:
    """Learn merges as the textbook does, and keep each one's count.

    Of pairs that are equally frequent, the one with the lower token ids is merged first.

    Args:
        word_counts: How often each word occurs, without its end-of-word mark.
        num_merges: Merges to make; fewer if no pair occurs twice.

    Returns:
        The merges, first to last.
    """
    ids = {bytes([byte]): byte for byte in range(NUM_BYTES)}
    tokens = list(ids)
    words = [
        (list(word), count)
        for text, count in word_counts.items()
        for word in split_words(text + " ")
    ]
    history: list[CountedMerge] = []
    while len(history) < num_merges:
        pairs: Counter[Pair] = Counter()
        for symbols, count in words:
            for pair in pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < _MIN_COUNT:
            break
        merge = CountedMerge(tokens[best[0]], tokens[best[1]], pairs[best])
        history.append(merge)
        if merge.token not in ids:
            ids[merge.token] = len(tokens)
            tokens.append(merge.token)
        for symbols, _ in words:
            _merge_everywhere(symbols, best, ids[merge.token])
    return history


def _merge_everywhere(symbols: list[int], pair: Pair, merged: int) -> None:
    position = 0
    while position < len(symbols) - 1:
        if (symbols[position], symbols[position + 1]) == pair:
            symbols[position : position + 2] = [merged]
        position += 1


class MergeTable:
    """The merges in order, and the tokens they make.

    Two merges may spell the same token (`a` + `bc`, `ab` + `c`): they then share its id.

    Args:
        merges: Pairs of token ids, first merge first; each pair occurs once and uses only bytes
            and tokens that earlier merges made.

    Raises:
        ConfigError: A pair is repeated, uses a token that does not exist yet, or makes one that is
            longer than any word.
    """

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges: list[Pair] = []
        self.tokens: list[bytes] = [bytes([byte]) for byte in range(NUM_BYTES)]
        self._merged: dict[Pair, tuple[int, int]] = {}  # the pair's rank, and the id it becomes
        self._cache: dict[bytes, tuple[int, ...]] = {}
        ids = {token: index for index, token in enumerate(self.tokens)}
        for rank, (left, right) in enumerate(merges):
            exist = 0 <= left < len(self.tokens) and 0 <= right < len(self.tokens)
            if not exist or (left, right) in self._merged:
                expected = f"a new pair of the tokens 0 to {len(self.tokens) - 1}"
                raise ConfigError(f"merges[{rank}]", got=(left, right), expected=expected)
            token = self.tokens[left] + self.tokens[right]
            if len(token) > MAX_TOKEN_BYTES:
                expected = f"a token of at most {MAX_TOKEN_BYTES} bytes"
                raise ConfigError(f"merges[{rank}]", got=len(token), expected=expected)
            if token not in ids:
                ids[token] = len(self.tokens)
                self.tokens.append(token)
            self.merges.append((left, right))
            self._merged[left, right] = (rank, ids[token])

    def encode(self, word: bytes) -> Sequence[int]:
        """Cut a word into tokens: always the earliest merge that applies, leftmost first.

        Args:
            word: One of the words of `split_words`.

        Returns:
            Token ids, at least one for a word that is not empty.
        """
        tokens = self._cache.get(word)
        if tokens is None:
            tokens = tuple(self._apply(word, drops=None))
            if len(self._cache) < _MAX_CACHED_WORDS:
                self._cache[word] = tokens
        return tokens

    def encode_with_dropout(self, word: bytes, drops: Iterator[bool]) -> list[int]:
        """Cut a word into tokens, leaving out merges at random: one word gets many spellings.

        Before each merge, every pair that could be merged is left out where `drops` says so; the
        word is finished when none is left to merge.

        Args:
            word: One of the words of `split_words`.
            drops: One decision per pair looked at; see `draw_drops`.

        Returns:
            Token ids, at least one for a word that is not empty.
        """
        return self._apply(word, drops)

    def _apply(self, word: bytes, drops: Iterator[bool] | None) -> list[int]:
        symbols = list(word)
        while True:
            best: tuple[int, int] | None = None
            where = 0
            for position, pair in enumerate(pairwise(symbols)):
                merge = self._merged.get(pair)
                if merge is None or (drops is not None and next(drops)):
                    continue
                if best is None or merge < best:
                    best, where = merge, position
            if best is None:
                return symbols
            symbols[where : where + 2] = [best[1]]


def draw_drops(dropout: float, generator: np.random.Generator) -> Iterator[bool]:
    """Decide without end whether a merge is left out.

    Args:
        dropout: The probability that it is, in [0, 1].
        generator: Where the decisions are drawn from, in blocks.

    Yields:
        True where a merge is left out.
    """
    while True:
        yield from (generator.random(NUM_BYTES) < dropout).tolist()
