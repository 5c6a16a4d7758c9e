import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from armchair.core.errors import ConfigError, DataError, OutputError, UsageError
from armchair.data import folder
from armchair.data.folder import FolderConfig, FolderPictures
from armchair.data.pictures import decode_picture
from armchair.data.types import CaptionedPictures


def add_picture(path: Path, caption: str | None = "a red mug", size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (200, 30, 30)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def add_good(folder: Path, count: int = 3) -> None:
    for index in range(count):
        add_picture(folder / f"good{index}.png")


def scan(folder: Path, **settings: float) -> FolderPictures:
    return FolderPictures.scan(FolderConfig(path=folder, **settings))


def reasons(pictures: FolderPictures) -> dict[str, str]:
    return {rejection.file: rejection.reason for rejection in pictures.rejections}


def test_pictures_with_text_files_of_the_same_name(tmp_path: Path) -> None:
    add_picture(tmp_path / "b.png", "A Mug\n\n  a red mug  \r\nA Mug\n")
    add_picture(tmp_path / "a" / "red apple.JPG", "\ufeffein Äpfelchen 🍎")
    (tmp_path / "README.md").write_text("no picture")
    pictures = scan(tmp_path)
    assert isinstance(pictures, CaptionedPictures)
    assert pictures.names == ["a/red apple.JPG", "b.png"]
    assert pictures.captions(0) == ["ein Äpfelchen 🍎"]
    assert pictures.captions(1) == ["A Mug", "a red mug"]
    assert (pictures.pixels(1) == [200, 30, 30]).all()
    assert not pictures.rejections


def test_metadata_jsonl(tmp_path: Path) -> None:
    add_picture(tmp_path / "a.png", caption=None)
    add_picture(tmp_path / "part" / "b.png", caption="from its text file")
    rows = [
        {"file_name": "a.png", "text": "first", "other": [1]},
        {"file_name": "./a.png", "text": "second"},
        {"file_name": "part/b.png", "text": "from metadata"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "metadata.jsonl").write_text("\ufeff" + lines + "\n\n", encoding="utf-8")
    pictures = scan(tmp_path)
    assert pictures.captions(0) == ["first", "second"]
    assert pictures.captions(1) == ["from metadata", "from its text file"]
    assert not pictures.rejections


def test_metadata_csv_in_a_folder_within(tmp_path: Path) -> None:
    add_picture(tmp_path / "part" / "a.png", caption=None)
    content = 'text,file_name\n"a mug, red, and\nlarge",a.png\n'
    (tmp_path / "part" / "metadata.csv").write_text(content)
    pictures = scan(tmp_path)
    assert pictures.names == ["part/a.png"]
    assert pictures.captions(0) == ["a mug, red, and\nlarge"]


def test_each_unusable_picture_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    add_good(folder, 10)
    add_picture(folder / "no caption.png", None)
    add_picture(folder / "empty.png", " \n\t\n")
    add_picture(folder / "long.png", "x" * 10_001)
    add_picture(folder / "small.png", size=4)
    add_picture(folder / "latin.png", None)
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    add_picture(folder / "huge text.png", "x\n" * (1 << 20))
    (folder / "text.jpg").write_text("no picture")
    (folder / "text.txt").write_text("a caption")
    add_picture(folder / "cut.png", size=64)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:120])
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "phone.txt").write_text("a caption")
    listed = tmp_path / "run" / "rejected.jsonl"
    pictures = FolderPictures.scan(FolderConfig(path=folder, min_size=8), rejected=listed)
    assert len(pictures) == 10
    expected = {
        "no caption.png": "no caption",
        "empty.png": "empty caption",
        "long.png": "caption too long",
        "small.png": "picture too small",
        "latin.png": "caption file is not UTF-8",
        "huge text.png": "caption file too large",
        "text.jpg": "not a picture of a known format",
        "cut.png": "picture damaged or truncated",
        "phone.heic": "not a picture of a known format",
    }
    assert reasons(pictures) == expected


def test_rejected_jsonl_has_file_reason_and_detail(tmp_path: Path) -> None:
    folder, listed = tmp_path / "pictures", tmp_path / "rejected.jsonl"
    add_good(folder)
    add_picture(folder / "klein ß.png", size=2)
    FolderPictures.scan(FolderConfig(path=folder, min_size=8), rejected=listed)
    assert [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()] == [
        {
            "file": "klein ß.png",
            "reason": "picture too small",
            "detail": "got '2x2', expected at least 8 pixels on each side",
        }
    ]
    (folder / "klein ß.png").unlink()
    FolderPictures.scan(FolderConfig(path=folder, min_size=8), rejected=listed)
    assert listed.read_text() == ""


def test_a_second_scan_decodes_only_what_is_new_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def spied(path: Path, **limits: int) -> np.ndarray:
        opened.append(path.name)
        return decode_picture(path, **limits)

    monkeypatch.setattr(folder, "decode_picture", spied)
    pictures, decoded = tmp_path / "pictures", tmp_path / "run" / "decoded.json"
    add_good(pictures)
    add_picture(pictures / "small.png", size=2)

    def opened_by_a_scan(**settings: int) -> list[str]:
        opened.clear()
        config = FolderConfig(path=pictures, **{"min_size": 8, **settings})
        assert FolderPictures.scan(config, decoded=decoded).names[0] == "good0.png"
        return opened

    assert opened_by_a_scan() == ["good0.png", "good1.png", "good2.png", "small.png"]
    assert opened_by_a_scan() == ["small.png"]  # its reason is found anew
    add_picture(pictures / "good1.png", size=9)
    add_picture(pictures / "good3.png")
    assert opened_by_a_scan() == ["good1.png", "good3.png", "small.png"]
    assert opened_by_a_scan(min_size=7) == [f"good{n}.png" for n in range(4)] + ["small.png"]
    for damaged in (b"", b"[]", b"{}", b'{"limits": [7, 1], "files": 3}'):
        decoded.write_bytes(damaged)
        assert len(opened_by_a_scan()) == 5


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    add_good(pictures)
    for name, content in ((b"\xff.png", (pictures / "good0.png").read_bytes()), (b"\xfe.png", b"")):
        (pictures / os.fsdecode(name)).write_bytes(content)
        (pictures / os.fsdecode(name)).with_suffix(".txt").write_text("a mug")
    rejected, decoded = tmp_path / "rejected.jsonl", tmp_path / "decoded.json"
    for _ in range(2):
        config = FolderConfig(path=pictures)
        scanned = FolderPictures.scan(config, rejected=rejected, decoded=decoded)
        assert os.fsdecode(b"\xff.png") in scanned.names
        assert len(rejected.read_text().splitlines()) == 1


def test_what_was_decoded_before_a_stop_is_not_decoded_again(tmp_path: Path) -> None:
    pictures, decoded = tmp_path / "pictures", tmp_path / "decoded.json"
    add_good(pictures)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FolderPictures.scan(FolderConfig(path=pictures), decoded=decoded, on_progress=stop)
    assert set(json.loads(decoded.read_text())["files"]) == {"good0.png", "good1.png"}


@pytest.mark.parametrize(
    ("line", "file", "reason"),
    [
        ('{"file_name": "missing.png", "text": "a"}', "missing.png", "no such file"),
        ('{"file_name": "null\\u0000.png", "text": "a"}', "null\0.png", "no such file"),
        ('{"file_name": "\\ud800.png", "text": "a"}', "?.png", "no such file"),
        ('{"file_name": "' + "x" * 5000 + '", "text": "a"}', "x" * 5000, "no such file"),
        ('{"file_name": ".", "text": "a"}', ".", "not a file"),
        ('{"file_name": "bare.png", "text": ""}', "bare.png", "empty caption"),
        ('{"file_name": "bare.png", "text": null}', "bare.png", "no caption"),
        ('{"file_name": "bare.png"}', "bare.png", "no caption"),
        ('{"file_name": "bare.png", "text": "\\ud800"}', "bare.png", "caption is no valid Unicode"),
        ('{"text": "a"}', "metadata.jsonl line 1", "metadata row without a file_name"),
        ('{"file_name": 5}', "metadata.jsonl line 1", "metadata row without a file_name"),
        ('{"file_name": ""}', "metadata.jsonl line 1", "metadata row without a file_name"),
        ("[" * 100_000, "metadata.jsonl line 1", "metadata row without a file_name"),
        ("{oops", "metadata.jsonl line 1", "metadata row without a file_name"),
        (
            '{"file_name": "../secret.png", "text": "a"}',
            "metadata.jsonl line 1",
            "file_name leads out of the folder",
        ),
        (
            '{"file_name": "/etc/passwd", "text": "a"}',
            "metadata.jsonl line 1",
            "file_name leads out of the folder",
        ),
    ],
)
def test_bad_metadata_rows_are_rejected(tmp_path: Path, line: str, file: str, reason: str) -> None:
    folder = tmp_path / "pictures"
    add_good(folder)
    if "bare" in line:
        add_picture(folder / "bare.png", None)
    add_picture(tmp_path / "secret.png")
    (folder / "metadata.jsonl").write_text(line)
    listed = tmp_path / "rejected.jsonl"
    pictures = FolderPictures.scan(FolderConfig(path=folder), rejected=listed)
    assert len(pictures) == 3
    assert reasons(pictures) == {file: reason}
    assert json.loads(listed.read_text(encoding="utf-8"))["reason"] == reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", b"", "columns: got .*expected file_name and text"),
        ("metadata.csv", b"name,text\na.png,b\n", "columns: got .*'name'"),
        ("metadata.csv", b"file_name,text\na.png," + b"x" * 200_000, "cannot be read as CSV"),
        ("metadata.csv", b"file_name,text\na.png,caf\xe9\n", "not UTF-8"),
        ("metadata.jsonl", b'{"file_name": "caf\xe9"}', "not UTF-8"),
    ],
)
def test_unreadable_metadata_is_a_data_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    add_good(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "pictures", tmp_path / "outside"
    add_good(folder, 6)
    add_picture(outside / "secret.png")
    (outside / "words.txt").write_text("secret words")
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "link.txt").write_text("a caption")
    (folder / "folder").symlink_to(outside)
    add_picture(folder / "words.png", None)
    (folder / "words.txt").symlink_to(outside / "words.txt")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "inner.png").symlink_to(folder / "good0.png")
    (folder / "inner.txt").write_text("a link within the folder")
    pictures = scan(folder)
    assert "inner.png" in pictures.names
    assert reasons(pictures) == {
        "link.png": "link leads out of the folder",
        "folder": "link to a folder is not followed",
        "words.png": "link leads out of the folder",
        "loop.png": "no such file",
    }
    (folder / "metadata.csv").symlink_to(outside / "words.txt")
    with pytest.raises(DataError, match=r"metadata.csv: link leads out of the folder"):
        scan(folder)


def test_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    add_good(tmp_path / "pictures")
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    assert len(scan(tmp_path / "link")) == 3


def test_hidden_and_special_files(tmp_path: Path) -> None:
    add_good(tmp_path)
    (tmp_path / "._good0.png").write_bytes(b"what macOS leaves behind")
    add_picture(tmp_path / ".hidden" / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert reasons(scan(tmp_path)) == {"pipe.png": "not a file"}


def test_undecodable_file_name(tmp_path: Path) -> None:
    add_good(tmp_path)
    (tmp_path / "good0.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "good0.txt").rename(tmp_path / os.fsdecode(b"caf\xe9.txt"))
    (tmp_path / os.fsdecode(b"th\xe9.png")).write_bytes(b"")
    pictures = FolderPictures.scan(FolderConfig(path=tmp_path), rejected=tmp_path / "r.jsonl")
    assert len(pictures) == 3
    assert sum(map(len, pictures.split())) == 3
    assert json.loads((tmp_path / "r.jsonl").read_text())["file"] == "th?.png"


def test_more_than_half_rejected_is_an_error(tmp_path: Path) -> None:
    folder, listed = tmp_path / "pictures", tmp_path / "rejected.jsonl"
    add_good(folder, 2)
    for index in range(2):
        add_picture(folder / f"bad{index}.png", None)
    assert len(scan(folder)) == 2
    add_picture(folder / "small.png", size=1)
    with pytest.raises(DataError) as caught:
        FolderPictures.scan(FolderConfig(path=folder, min_size=2), rejected=listed)
    message = str(caught.value)
    assert "3 of 5 pictures cannot be used: no caption (2), picture too small (1)" in message
    assert f"hint: {listed} lists each" in message
    assert len(listed.read_text().splitlines()) == 3


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no pictures\nhint: put pictures"):
        scan(tmp_path)
    add_picture(tmp_path / "a.png", None)
    with pytest.raises(DataError, match="1 of 1 pictures cannot be used"):
        scan(tmp_path)


def test_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match="is no folder"):
            scan(path)


def test_unwritable_list_of_rejections_is_an_output_error(tmp_path: Path) -> None:
    add_good(tmp_path)
    with pytest.raises(OutputError):
        FolderPictures.scan(
            FolderConfig(path=tmp_path), rejected=tmp_path / "good0.txt" / "rejected.jsonl"
        )


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    add_good(tmp_path)
    add_picture(tmp_path / "bad.png", None)
    seen: list[tuple[int, int]] = []
    FolderPictures.scan(
        FolderConfig(path=tmp_path), on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_picture_that_vanished_is_named(tmp_path: Path) -> None:
    add_good(tmp_path)
    pictures = scan(tmp_path)
    (tmp_path / "good1.png").unlink()
    with pytest.raises(DataError, match=r"good1\.png: no such file\nhint: it was fine"):
        pictures.pixels(1)


def test_another_picture_or_caption_is_another_fingerprint(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return scan(tmp_path).fingerprint()

    add_picture(tmp_path / "a.png", "an apple")
    add_picture(tmp_path / "b.png", "a pear")
    found = [fingerprint()]
    (tmp_path / "b.png").touch()
    assert fingerprint() == found[0]
    (tmp_path / "b.txt").write_text("a green pear")
    found.append(fingerprint())
    add_picture(tmp_path / "c.png", "a plum")
    found.append(fingerprint())
    Image.effect_noise((50, 50), 50).save(tmp_path / "c.png")
    found.append(fingerprint())
    assert len(set(found)) == 4
    scanned = scan(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        scanned.fingerprint()


def test_pictures_travel_to_data_workers(tmp_path: Path) -> None:
    add_good(tmp_path)
    copy = pickle.loads(pickle.dumps(scan(tmp_path)))
    assert np.array_equal(copy.pixels(0), scan(tmp_path).pixels(0))


def test_split_is_stable_when_pictures_are_added(tmp_path: Path) -> None:
    config = FolderConfig(path=tmp_path, validation_fraction=0.2)
    names = [f"{index}.png" for index in range(400)]

    def parts(count: int) -> tuple[set[str], set[str]]:
        captions = [["a mug"]] * count
        training, validation = FolderPictures(config, names[:count], captions).split()
        return set(training.names), set(validation.names)

    training, validation = parts(400)
    assert not training & validation
    assert training | validation == set(names)
    assert 50 <= len(validation) <= 110
    for count in (200, 300):
        earlier_training, earlier_validation = parts(count)
        assert earlier_training <= training
        assert earlier_validation <= validation


def test_split_keeps_captions_with_their_pictures(tmp_path: Path) -> None:
    for index in range(20):
        add_picture(tmp_path / f"{index}.png", f"number {index}")
    for part in scan(tmp_path, validation_fraction=0.5).split():
        assert len(part) > 0
        for index, name in enumerate(part.names):
            assert part.captions(index) == [f"number {Path(name).stem}"]


@pytest.mark.parametrize(
    ("count", "fraction", "sizes"),
    [(2, 0.05, (1, 1)), (2, 0.99, (1, 1)), (1, 0.5, (1, 0)), (5, 0.0, (5, 0))],
)
def test_neither_part_is_empty(
    tmp_path: Path, count: int, fraction: float, sizes: tuple[int, int]
) -> None:
    add_good(tmp_path, count)
    training, validation = scan(tmp_path, validation_fraction=fraction).split()
    assert (len(training), len(validation)) == sizes


@pytest.mark.parametrize(
    "setting",
    [
        {"min_size": 0},
        {"max_pixels": 0},
        {"max_pixels": 10**9},
        {"validation_fraction": 1.0},
        {"validation_fraction": -0.1},
        {"validation_fraction": float("nan")},
    ],
)
def test_config_is_checked(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(setting))}: got"):
        FolderConfig(path=Path("x"), **setting)
