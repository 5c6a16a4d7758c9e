"""From the name of a data set to its training and validation pictures.

train, validation = open_data(DataConfig(source="scenes"), image_size=128)
train, validation = open_data(DataConfig(source="folder:~/pictures"), image_size=128)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from armchair.core.errors import ConfigError, UsageError
from armchair.data.folder import FolderConfig, FolderPictures, Progress
from armchair.data.scenes import MIN_SIZE, Scenes, ScenesConfig
from armchair.data.types import CaptionedPictures


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures to train on.

    Attributes:
        source: "scenes", or "folder:PATH".
        num_pictures: Scenes to train on; a folder is taken whole.
        num_validation: Scenes to validate on; a folder sets some of its own pictures aside.
        views: Crops of each picture that are encoded for a later stage; the first is the centre,
            the rest are random. Scenes need only one.
        seed: Which scenes.
    """

    source: str = "scenes"
    num_pictures: int = 40_000
    num_validation: int = 512
    views: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_pictures", "num_validation", "views"):
            if getattr(self, name) < 1:
                raise ConfigError(name, got=getattr(self, name), expected="at least 1")


def open_data(
    config: DataConfig,
    *,
    image_size: int,
    rejected: Path | None = None,
    decoded: Path | None = None,
    message: Callable[[str], None] = lambda text: None,
    on_progress: Progress | None = None,
) -> tuple[CaptionedPictures, CaptionedPictures]:
    """Open a data set.

    Args:
        config: Which.
        image_size: The side that pictures are trained at, in pixels.
        rejected: Where to list the pictures of a folder that cannot be used.
        decoded: Where to remember the files of a folder that were decoded to check them.
        message: Told how many pictures of a folder cannot be used, if any.
        on_progress: Called as the pictures of a folder are checked.

    Returns:
        Training and validation pictures.

    Raises:
        UsageError: No such source.
        DataError: Nothing in the folder can be used, or most of it cannot.
    """
    kind, _, rest = config.source.partition(":")
    if kind == "scenes" and not rest:
        common = {"size": max(image_size, MIN_SIZE), "seed": config.seed}
        return (
            Scenes(ScenesConfig(num_pictures=config.num_pictures, split="train", **common)),
            Scenes(ScenesConfig(num_pictures=config.num_validation, split="validation", **common)),
        )
    if kind == "folder" and rest:
        # Half the side can still be enlarged to something worth training on.
        folder = FolderConfig(path=Path(rest).expanduser(), min_size=max(1, image_size // 2))
        pictures = FolderPictures.scan(
            folder, rejected=rejected, decoded=decoded, on_progress=on_progress
        )
        if pictures.rejections:
            message(f"{folder.path}: {pictures.rejected}; {rejected} lists each with its reason")
        return pictures.split()
    raise UsageError(
        "data", got=config.source, expected='"scenes" or "folder:PATH"', hint="try --data scenes"
    )


def at_size(pictures: CaptionedPictures, size: int) -> CaptionedPictures:
    """The same pictures for use at a side of `size` pixels.

    Scenes are drawn at that size, which is quicker than to shrink them; files are as they are.
    """
    if not isinstance(pictures, Scenes):
        return pictures
    return Scenes(replace(pictures.config, size=max(size, MIN_SIZE)))
