from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from armchair.core.errors import BundleError, UsageError
from armchair.text.clip_tokenizer import CLIPTokenizer

MERGES = [("c", "a"), ("ca", "t</w>"), ("h", "o"), ("ho", "t</w>"), ("p", "ho"), ("t", "o</w>")]
CAT, START, END = 513, 518, 519
A = 64  # where the published vocabulary has the byte a


@pytest.fixture
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(MERGES, context_length=8)


def test_bytes_have_the_published_places(tokenizer: CLIPTokenizer) -> None:
    """There "a" as a word is 320."""
    assert tokenizer.encode("a") == [START, 320, END]
    assert tokenizer.encode("!") == [START, 256, END]
    assert tokenizer.encode("é") == [START, 0xC3 - 174 + 94 + 12, 256 + 0xA9 - 161 + 94, END]


def test_merges_apply_inside_words_in_their_order(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.encode("cat") == [START, CAT, END]
    assert tokenizer.encode("photo") == [START, 516, 517, END]
    assert tokenizer.encode("ca") == [START, A + 2, 256 + A, END]  # "ca" within a word alone
    assert tokenizer.encode("cats") == [START, 512, A + 19, 256 + A + 18, END]


def test_texts_are_cleaned_as_they_were_for_training(tokenizer: CLIPTokenizer) -> None:
    plain = tokenizer.encode("a cat")
    for text in ("A  CAT", " a\ncat ", "a&#32;cat", "a&amp;#32;cat"):
        assert tokenizer.encode(text) == plain


def test_words_are_split_at_digits_signs_and_endings(tokenizer: CLIPTokenizer) -> None:
    def word(character: str) -> int:
        return 256 + ord(character) - 33

    assert tokenizer.encode("42") == [START, word("4"), word("2"), END]
    assert tokenizer.encode("a's") == [START, 320, ord("'") - 33, word("s"), END]
    assert tokenizer.encode("a?!") == [START, 320, ord("?") - 33, word("!"), END]


def test_a_batch_is_filled_up_with_zeros(tokenizer: CLIPTokenizer) -> None:
    batch = tokenizer.encode_batch(["cat", "a cat"])
    assert batch.dtype == np.int64
    assert batch.tolist() == [
        [START, CAT, END, 0, 0, 0, 0, 0],
        [START, 320, CAT, END, 0, 0, 0, 0],
    ]


def test_long_captions_are_refused_or_cut_before_their_end(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(UsageError, match="tokens of the caption 'cat cat") as caught:
        tokenizer.encode_batch(["cat " * 7])
    assert "got 9, expected at most 8" in str(caught.value)
    assert "--truncate" in str(caught.value)
    cut = tokenizer.encode_batch(["cat " * 7], truncate=True)
    assert cut.tolist() == [[START, *[CAT] * 6, END]]
    with pytest.raises(UsageError, match="caption"):
        tokenizer.encode_batch([" "])


@pytest.mark.parametrize("name", ["merges.txt", "merges.txt.gz"])
@pytest.mark.parametrize("header", ['"bpe_simple_vocab_16e6.txt#version: 0.2\n', ""])
def test_it_is_read_from_a_list_of_merges(
    tokenizer: CLIPTokenizer, tmp_path: Path, name: str, header: str
) -> None:
    text = header + "\n".join(map(" ".join, MERGES)) + "\n"
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    again = CLIPTokenizer.load(tmp_path / name)
    assert again.merges == MERGES
    assert again.context_length == 77
    assert again.encode("a photo cat") == tokenizer.encode("a photo cat")


def test_the_published_list_is_longer_than_the_vocabulary(tmp_path: Path) -> None:
    filler = [f"{chr(97 + i // 26 % 26)} {chr(97 + i % 26)}" for i in range(676)]
    lines = (filler * 80)[:50_000]
    (tmp_path / "list.txt").write_text("#version: 0.2\n" + "\n".join(lines))
    assert CLIPTokenizer.load(tmp_path / "list.txt").end == 49_407


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no list of merges"),
        (b"#version: 0.2\na b c\n", "no list of merges"),
        (b"\xff\xfe", "cannot be read"),
        (b"#version: 0.2\nnever made\n", "make no vocabulary"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "merges.txt").write_bytes(data)
    with pytest.raises(BundleError, match=message):
        CLIPTokenizer.load(tmp_path / "merges.txt")
    with pytest.raises(BundleError, match="cannot be read"):
        CLIPTokenizer.load(tmp_path / "none.txt")
    (tmp_path / "merges.gz").write_bytes(b"no gzip")
    with pytest.raises(BundleError, match="cannot be read"):
        CLIPTokenizer.load(tmp_path / "merges.gz")


def test_its_content_is_read_back(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text(tokenizer.content)
    assert CLIPTokenizer.load(tmp_path / "merges.txt").merges == MERGES
