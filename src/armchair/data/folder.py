"""A folder of captioned pictures: checked once, and what cannot be used is listed with its reason.

    folder/red apple.jpg, folder/red apple.txt      each line of the text is a caption
    folder/metadata.jsonl                           {"file_name": "red apple.jpg", "text": "…"}
    folder/metadata.csv                             file_name,text

Folders within it count too; a metadata file names pictures relative to its own folder. A picture
may have captions from several places, and each is a wording of its own. Names that begin with a dot
are overlooked.

    pictures = FolderPictures.scan(FolderConfig(path=Path("folder"), min_size=64))
    training, validation = pictures.split()
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from armchair.core.errors import ConfigError, DataError, UsageError
from armchair.core.files import write_text
from armchair.data.caption_files import (
    Rejection,
    clean_captions,
    list_files,
    read_metadata,
    read_sidecar,
    resolve_inside,
)
from armchair.data.decoded_files import DecodedFiles
from armchair.data.pictures import MAX_PIXELS, decode_picture

_NUM_REASONS = 3  # that an error message names

Progress = Callable[[int, int], None]  # pictures checked, pictures in all


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """What to take from a folder.

    Attributes:
        path: The folder.
        min_size: Smallest side of a picture that is used, in pixels.
        max_pixels: Most pixels of a picture that is used, at most `pictures.MAX_PIXELS`.
        validation_fraction: Share of the pictures kept for validation, in [0, 1).
    """

    path: Path
    min_size: int = 1
    max_pixels: int = MAX_PIXELS
    validation_fraction: float = 0.05

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise ConfigError("min_size", got=self.min_size, expected="at least 1 pixel")
        if not 1 <= self.max_pixels <= MAX_PIXELS:
            expected = f"1 to {MAX_PIXELS} pixels"
            raise ConfigError("max_pixels", got=self.max_pixels, expected=expected)
        if not 0 <= self.validation_fraction < 1:
            got = self.validation_fraction
            raise ConfigError("validation_fraction", got=got, expected="at least 0 and below 1")


class FolderPictures:
    """Pictures of a folder that can all be used; see `CaptionedPictures`.

    Args:
        config: Where they come from.
        names: Paths relative to the folder.
        captions: For each name, at least one.
        rejections: What was left out when the folder was scanned.
    """

    def __init__(
        self,
        config: FolderConfig,
        names: Sequence[str],
        captions: Sequence[list[str]],
        rejections: Sequence[Rejection] = (),
    ) -> None:
        self.config = config
        self.names = list(names)
        self.rejections = list(rejections)
        self._captions = list(captions)

    @property
    def rejected(self) -> str:
        """How many pictures were left out when the folder was scanned, and why."""
        return _count(self.rejections, len(self) + len(self.rejections))

    @classmethod
    def scan(
        cls,
        config: FolderConfig,
        *,
        rejected: Path | None = None,
        decoded: Path | None = None,
        on_progress: Progress | None = None,
    ) -> FolderPictures:
        """Find the pictures of a folder and decode each once to see that it can be used.

        Args:
            config: The folder and its limits.
            rejected: Where to list what is left out, one JSON object a line: file, reason, detail.
            decoded: Where to remember what could be decoded, so that another scan decodes only what
                is new or changed.
            on_progress: Called after each picture.

        Returns:
            The pictures that can be used, sorted by name.

        Raises:
            UsageError: There is no such folder.
            DataError: A metadata file cannot be read, nothing can be used, or more than half is
                rejected.
            OutputError: `rejected` or `decoded` cannot be written.
        """
        if not config.path.is_dir():
            hint = "give a folder that holds pictures and their captions"
            raise UsageError(f"{config.path} is no folder", hint=hint)
        listed, rejections = _list(config.path)
        usable: dict[str, list[str]] = {}
        known = DecodedFiles(decoded, [config.min_size, config.max_pixels])
        try:
            for done, name in enumerate(sorted(listed), start=1):
                try:
                    usable[name] = _check(config, name, listed[name], known)
                except DataError as error:
                    rejections.append(Rejection.of(name, error))
                if on_progress is not None:
                    on_progress(done, len(listed))
        finally:
            known.save()
        if rejected is not None:
            lines = (json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in rejections)
            write_text(rejected, "".join(lines))
        _require_enough(config.path, len(usable), rejections, rejected)
        return cls(config, list(usable), list(usable.values()), rejections)

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture as 8-bit RGB, upright, on white.

        Raises:
            DataError: The file was changed or removed since the folder was scanned.
        """
        name = self.names[index]
        try:
            return _decode(self.config, name)
        except DataError as error:
            message = f"{self.config.path / name}: {str(error).partition(chr(10))[0]}"
            raise DataError(message, hint="it was fine when the folder was scanned") from error

    def captions(self, index: int) -> list[str]:
        """The captions, at least one; each is a wording of its own."""
        return list(self._captions[index])

    def fingerprint(self) -> str:
        """A hash of the pictures' names, their sizes in bytes, and their captions.

        Raises:
            DataError: A file was removed since the folder was scanned.
        """
        digest = hashlib.sha256()
        for name, captions in zip(self.names, self._captions, strict=True):
            try:
                size = (self.config.path / name).stat().st_size
            except OSError as error:
                message = f"{self.config.path / name} cannot be read ({error.strerror})"
                hint = "it was fine when the folder was scanned"
                raise DataError(message, hint=hint) from error
            digest.update(json.dumps([name, size, captions]).encode() + b"\n")
        return digest.hexdigest()

    def split(self) -> tuple[FolderPictures, FolderPictures]:
        """Part the pictures into training and validation by a hash of their names.

        A picture stays where it is when others are added or removed, but for the one that keeps a
        tiny part from being empty. Neither part is empty, unless there is only one picture or
        `validation_fraction` is 0: then validation is.

        Returns:
            Training pictures and validation pictures.
        """
        places = [_hash_fraction(name) for name in self.names]
        count = sum(place < self.config.validation_fraction for place in places)
        if self.config.validation_fraction > 0 and len(self) > 1:
            count = min(max(count, 1), len(self) - 1)
        by_hash = sorted(range(len(self)), key=places.__getitem__)
        return self._subset(sorted(by_hash[count:])), self._subset(sorted(by_hash[:count]))

    def _subset(self, indices: Sequence[int]) -> FolderPictures:
        names = [self.names[index] for index in indices]
        return FolderPictures(self.config, names, [self._captions[index] for index in indices])


def _list(root: Path) -> tuple[dict[str, list[str]], list[Rejection]]:
    """All pictures that are found or named, with the captions of the metadata files."""
    listing = list_files(root)
    listed: dict[str, list[str]] = {name: [] for name in listing.pictures}
    rejections = listing.rejections
    for metadata in listing.metadata:
        captions, bad_rows = read_metadata(root, metadata)
        rejections += bad_rows
        for name, texts in captions.items():
            listed.setdefault(name, []).extend(texts)
    return listed, rejections


def _check(config: FolderConfig, name: str, captions: list[str], known: DecodedFiles) -> list[str]:
    """The captions of a picture that can be used; a DataError says why it cannot."""
    path = resolve_inside(config.path, name)  # first: a missing file's captions do not matter
    captions = clean_captions(captions + read_sidecar(config.path, name))
    if (name, path) not in known:
        _decode(config, name)
    known.add(name, path)
    return captions


def _decode(config: FolderConfig, name: str) -> UInt8[np.ndarray, "H W 3"]:
    path = resolve_inside(config.path, name)
    return decode_picture(path, min_size=config.min_size, max_pixels=config.max_pixels)


def _require_enough(
    path: Path, num_usable: int, rejections: Sequence[Rejection], rejected: Path | None
) -> None:
    total = num_usable + len(rejections)
    if not total:
        hint = "put pictures (.png, .jpg, .webp, …) there, each with a .txt of the same name"
        raise DataError(f"{path} holds no pictures", hint=hint)
    if num_usable and 2 * len(rejections) <= total:
        return
    hint = f"{rejected} lists each with its reason" if rejected else None
    raise DataError(f"{path}: {_count(rejections, total)}", hint=hint)


def _count(rejections: Sequence[Rejection], total: int) -> str:
    reasons = Counter(rejection.reason for rejection in rejections).most_common(_NUM_REASONS)
    shown = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    return f"{len(rejections)} of {total} pictures cannot be used: {shown}"


def _hash_fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48
