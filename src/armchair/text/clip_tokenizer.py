"""OpenAI's CLIP tokenizer, built from its published list of merges.

    tokenizer = CLIPTokenizer.load(Path("bpe_simple_vocab_16e6.txt.gz"))
    tokenizer.encode_batch(["a photo of a cat"])     # (1, 77): start, tokens, end, zeros

    0 .. 255          the bytes, the printable ones first
    256 .. 511        the same at the end of a word
    512 ..            the merges
    the last two      the start and the end of a text

Broken encodings in captions ("â€™" for an apostrophe) are taken as they are, not repaired.

Source: "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020,
section 2.4, and the vocabulary published with it.
"""

from __future__ import annotations

import gzip
import html
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from armchair.core.errors import BundleError
from armchair.text.tokenizer import caption_too_long, check_caption

_NUM_MERGES = 48_894  # the published list goes on, but the models know no more
_MAX_FILE_BYTES = 16 << 20
_HEADER = "#version: 0.2"
_END_OF_WORD = "</w>"
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class CLIPTokenizer:
    """The vocabulary that OpenAI's CLIP models were trained with.

    Args:
        merges: Pairs of symbols, first merge first.
        context_length: Text positions T.

    Raises:
        BundleError: A merge uses a symbol that no byte or earlier merge makes.
    """

    def __init__(self, merges: Sequence[tuple[str, str]], *, context_length: int = 77) -> None:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        self.merges = list(merges)
        self.context_length = context_length
        # Bytes that cannot be printed go by characters from 256 on, as in the published list.
        others = (chr(256 + index) for index in range(256 - len(_PRINTABLE)))
        alphabet = [*map(chr, _PRINTABLE), *others]
        symbols = alphabet + [symbol + _END_OF_WORD for symbol in alphabet]
        symbols += ["".join(pair) for pair in self.merges]
        self.start, self.end = len(symbols), len(symbols) + 1
        vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
        try:
            model = models.BPE(
                vocab=vocabulary, merges=self.merges, end_of_word_suffix=_END_OF_WORD
            )
        except Exception as error:  # the library has none of its own kind
            raise BundleError(f"these merges make no vocabulary ({error})") from error
        self._library = Tokenizer(model)
        pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._library.pre_tokenizer = pre_tokenizers.Sequence([pieces, to_bytes])  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def load(cls, path: Path, *, context_length: int = 77) -> CLIPTokenizer:
        """Read a list of merges, a pair of symbols a line, plain or compressed with gzip.

        Raises:
            BundleError: The file is missing, too large, or no such list.
        """
        hint = "give CLIP's bpe_simple_vocab_16e6.txt.gz, or the merges.txt of a model"
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            if len(data) > _MAX_FILE_BYTES:
                raise BundleError(f"{path} is too large for a list of merges", hint=hint)
            lines = data.decode("utf-8").split("\n")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise BundleError(f"{path} cannot be read ({error})", hint=hint) from error
        lines = lines[1:] if "#version" in lines[0] else lines
        merges = [tuple(line.split()) for line in lines[:_NUM_MERGES] if line.strip()]
        if not merges or any(len(pair) != 2 for pair in merges):
            expected = "two symbols on each line"
            raise BundleError(f"{path} is no list of merges", expected=expected, hint=hint)
        pairs = [(left, right) for left, right in merges]
        return cls(pairs, context_length=context_length)

    @property
    def content(self) -> str:
        """The list of merges as text that `load` reads."""
        return "\n".join([_HEADER, *map(" ".join, self.merges), ""])

    def encode(self, text: str) -> list[int]:
        """Write a text in tokens, of any number, between the start and the end.

        Raises:
            UsageError: The text is empty, too long, or no valid Unicode.
        """
        check_caption(text)
        plain = unicodedata.normalize("NFC", html.unescape(html.unescape(text)))
        words = " ".join(plain.split()).lower()
        tokens = self._library.encode(words, add_special_tokens=False).ids
        return [self.start, *tokens, self.end]

    def encode_batch(
        self, texts: Sequence[str], *, truncate: bool = False
    ) -> Int[np.ndarray, "B T"]:
        """Write captions in tokens, filled up with zeros.

        Args:
            texts: The captions; see `encode` for each.
            truncate: Cut captions that are too long instead of refusing them; their end stays.

        Raises:
            UsageError: A caption is too long, and `truncate` is off, or cannot be encoded.
        """
        batch = np.zeros((len(texts), self.context_length), np.int64)
        for row, text in zip(batch, texts, strict=True):
            tokens = self.encode(text)
            if len(tokens) > len(row):
                if not truncate:
                    raise caption_too_long(text, len(tokens), len(row))
                tokens = [*tokens[: len(row) - 1], self.end]
            row[: len(tokens)] = tokens
        return batch
