"""Captions to tokens and back: lower-cased byte-pair encoding with a padding token per position.

The text vocabulary of a model has `num_text_tokens = vocab_size + context_length` entries:

    0 .. 255                           the bytes
    256 .. vocab_size - 1              the merges (the last ids stay unused by a small corpus)
    vocab_size + i                     padding at text position i, each with its own embedding

    tokenizer = Tokenizer.train(captions, TokenizerConfig(vocab_size=1024, context_length=64))
    tokens = tokenizer.encode_batch(["an armchair in the shape of an avocado"])   # (1, 64)
    tokenizer.decode(tokens[0])

Source: "Zero-Shot Text-to-Image Generation", arXiv 2102.12092, §2.2.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Int

from armchair.core.captions import MAX_CAPTION_CHARACTERS, first_invalid_character
from armchair.core.errors import BundleError, ConfigError, DataError, UsageError
from armchair.core.files import write_text
from armchair.text.bpe import NUM_BYTES, MergeTable, draw_drops, learn_merges, split_words

_MAX_VOCAB_SIZE = 1 << 20
_MAX_CONTEXT_LENGTH = 1 << 16
_MAX_FILE_BYTES = 64 << 20
_FORMAT = "armchair-tokenizer"
_VERSION = 1
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How captions become tokens.

    Attributes:
        vocab_size: Byte and merge tokens at most, padding not counted; 256 means bytes only.
        context_length: Text positions, in tokens.
        dropout: The probability of leaving a merge out when a training caption is encoded.
    """

    vocab_size: int = 16_384
    context_length: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_whole("vocab_size", self.vocab_size, NUM_BYTES, _MAX_VOCAB_SIZE)
        _check_whole("context_length", self.context_length, 1, _MAX_CONTEXT_LENGTH)
        _check_probability("dropout", self.dropout)

    @property
    def text_shape(self) -> tuple[int, int]:
        """Text tokens without padding, and text positions: what a model that reads them is of."""
        return self.vocab_size, self.context_length


class Tokenizer:
    """A trained vocabulary.

    Args:
        config: Its sizes.
        merges: Pairs of token ids, first merge first; see `bpe.MergeTable`.

    Raises:
        ConfigError: The merges contradict each other or make more tokens than `config.vocab_size`.
    """

    def __init__(self, config: TokenizerConfig, merges: Iterable[tuple[int, int]]) -> None:
        self.config = config
        self.table = MergeTable(merges)
        if len(self.table.tokens) > config.vocab_size:
            got, expected = len(self.table.tokens), f"at most vocab_size = {config.vocab_size}"
            raise ConfigError("tokens that the merges make", got=got, expected=expected)

    @classmethod
    def train(cls, captions: Iterable[str], config: TokenizerConfig) -> Tokenizer:
        """Learn the merges of a corpus; the same corpus gives the same tokenizer.

        Args:
            captions: The corpus; its order does not matter.
            config: Sizes to reach; a small corpus may give fewer merges.

        Raises:
            DataError: There are no captions.
            UsageError: A caption cannot be encoded; see `encode`.
        """
        count = 0

        def counted() -> Iterator[str]:
            nonlocal count
            for caption in captions:
                count += 1
                yield _normalize(caption)

        merges = learn_merges(counted(), config.vocab_size)
        if not count:
            raise DataError("captions to train the tokenizer on", got=0, expected="at least one")
        return cls(config, merges)

    @property
    def num_text_tokens(self) -> int:
        """Entries of a model's text vocabulary: `vocab_size` tokens and the padding tokens."""
        return self.config.vocab_size + self.config.context_length

    @property
    def padding(self) -> Int[np.ndarray, " T"]:
        """The padding token of every text position; alone, it is the caption that says nothing."""
        return np.arange(self.config.vocab_size, self.num_text_tokens, dtype=np.int64)

    def encode(
        self, text: str, *, dropout: float = 0.0, generator: np.random.Generator | None = None
    ) -> list[int]:
        """Write a text in tokens, of any number.

        Args:
            text: At most `MAX_CAPTION_CHARACTERS`, with something besides blanks in it.
            dropout: The probability of leaving a merge out, in [0, 1]; 0 gives the one shortest
                spelling, 1 single bytes.
            generator: Where dropout is drawn from; needed where `dropout` is not 0.

        Returns:
            Token ids in [0, vocab_size).

        Raises:
            UsageError: The text is empty, too long, or no valid Unicode (a lone surrogate).
        """
        _check_probability("dropout", dropout)
        words = split_words(_normalize(text))
        if dropout == 0.0:
            return [token for word in words for token in self.table.encode(word)]
        if generator is None:
            raise UsageError("generator", got=None, expected="a generator, as dropout is not 0")
        drops = draw_drops(dropout, generator)
        return [token for word in words for token in self.table.encode_with_dropout(word, drops)]

    def decode(self, tokens: Iterable[int] | Int[np.ndarray, " T"]) -> str:
        """Give back the text, lower-cased; padding is skipped.

        Args:
            tokens: Token ids in [0, num_text_tokens).

        Returns:
            The text; a character of which a cut left only some bytes becomes U+FFFD.

        Raises:
            UsageError: A token does not exist.
        """
        parts: list[bytes] = []
        for token in map(int, tokens):
            if 0 <= token < len(self.table.tokens):
                parts.append(self.table.tokens[token])
            elif not self.config.vocab_size <= token < self.num_text_tokens:
                used = f"0 to {len(self.table.tokens) - 1}"
                expected = f"{used}, or padding from {self.config.vocab_size}"
                raise UsageError("text token", got=token, expected=expected)
        text = b"".join(parts).decode(errors="replace")
        return text.removesuffix(" ")  # the last word's end-of-word mark

    def encode_batch(
        self,
        texts: Sequence[str],
        truncate: bool = False,
        *,
        dropout: float = 0.0,
        generator: np.random.Generator | None = None,
    ) -> Int[np.ndarray, "B T"]:
        """Write captions in tokens, padded to one length.

        Dropout makes captions longer: one that fits only without it is encoded without it.

        Args:
            texts: The captions; see `encode` for each.
            truncate: Cut captions that are too long instead of refusing them.
            dropout: As in `encode`.
            generator: As in `encode`; shared by the captions, first to last.

        Returns:
            int64 token ids; position i is padded with the token `vocab_size + i`.

        Raises:
            UsageError: A caption is too long, and `truncate` is off, or cannot be encoded.
        """
        length = self.config.context_length
        batch = np.tile(self.padding, (len(texts), 1))
        for row, text in zip(batch, texts, strict=True):
            tokens = self.encode(text, dropout=dropout, generator=generator)
            if len(tokens) > length and dropout:
                plain = self.encode(text)
                tokens = plain if len(plain) <= length or not truncate else tokens
            if len(tokens) > length and not truncate:
                raise caption_too_long(text, len(tokens), length)
            row[: len(tokens)] = tokens[:length]
        return batch

    @property
    def content(self) -> str:
        """What `save` writes: JSON on one line."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "config": dataclasses.asdict(self.config),
            "merges": self.table.merges,
        }
        return json.dumps(content, separators=(",", ":")) + "\n"

    def save(self, path: Path) -> None:
        """Write the tokenizer to one JSON file, atomically.

        Raises:
            OutputError: It cannot be written.
        """
        write_text(path, self.content)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer that `save` wrote.

        Raises:
            BundleError: The file is missing, damaged, or not a tokenizer of this version.
        """
        content = _read_json(path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise BundleError(f"{path}: not a tokenizer file")
        version = content.get("version")
        if version != _VERSION:
            hint = "a newer armchair may have written it: upgrade"
            raise BundleError(f"{path}: version", got=version, expected=str(_VERSION), hint=hint)
        config, merges = content.get("config"), content.get("merges")
        if not _is_config(config):
            expected = "vocab_size, context_length, and dropout as numbers"
            raise BundleError(f"{path}: config", got=config, expected=expected)
        if not isinstance(merges, list) or not all(_is_pair(merge) for merge in merges):
            raise BundleError(f"{path}: merges", expected="a list of pairs of token ids")
        try:
            return cls(TokenizerConfig(**config), [(left, right) for left, right in merges])
        except ConfigError as error:
            raise BundleError(f"{path}: {str(error).partition(chr(10))[0]}") from error


def check_caption(text: str) -> None:
    """Refuse what no tokenizer can encode.

    Raises:
        UsageError: The text is empty, too long, or no valid Unicode (a lone surrogate).
    """
    if len(text) > MAX_CAPTION_CHARACTERS:
        expected = f"at most {MAX_CAPTION_CHARACTERS} characters"
        raise UsageError(f"caption {_shorten(text)!r}", got=len(text), expected=expected)
    if not text.strip():
        raise UsageError("caption", got=text, expected="a few words", hint="say what to draw")
    if (place := first_invalid_character(text)) is not None:
        message = f"caption {_shorten(text)!r}: character {place} is no valid Unicode"
        raise UsageError(message, hint="was the text read in the wrong encoding?")


def caption_too_long(text: str, got: int, length: int) -> UsageError:
    """The error for a caption of `got` tokens where `length` are accepted."""
    return UsageError(
        f"tokens of the caption {_shorten(text)!r}",
        got=got,
        expected=f"at most {length}",
        hint="shorten the caption, or cut it with --truncate",
    )


def _normalize(text: str) -> str:
    """Lower-case a caption and end its last word."""
    check_caption(text)
    return text.lower() + " "


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _read_json(path: Path) -> Any:
    hint = "the file is damaged: copy or download it again"
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise BundleError(f"{path}: too large for a tokenizer", hint=hint)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"cannot read the tokenizer {path} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: no valid JSON ({error})", hint=hint) from error


def _is_config(value: object) -> TypeGuard[dict[str, Any]]:
    types = {"vocab_size": (int,), "context_length": (int,), "dropout": (float, int)}
    if not isinstance(value, dict) or set(value) != set(types):
        return False
    return all(type(value[field]) in types[field] for field in types)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)


def _check_whole(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(field, got=value, expected=f"a whole number from {low} to {high}")


def _check_probability(field: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(field, got=value, expected="a probability from 0 to 1")
