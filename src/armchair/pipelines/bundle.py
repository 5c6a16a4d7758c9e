"""A bundle: a trained model as a folder that says what it is and proves that it is whole.

    manifest.json            format, kind, configs, provenance, sampling defaults, checksums
    README.md                the model card
    tokenizer.json           the text vocabulary
    *.safetensors            weights, as float16
    evaluation.json          scores, once measured

The same layout is read from a local path, from the models that ship with the package, and from a
Hugging Face repository. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from armchair.core.errors import BundleError, UnknownNameError
from armchair.core.files import atomic_path, make_folder, sha256, write_json, write_text

FORMAT = "armchair-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CARD = "README.md"
EVALUATION = "evaluation.json"
SHIPPED = Path(__file__).parent.parent / "bundles"

_MAX_MANIFEST_BYTES = 4 << 20
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"}
_IGNORED = {MANIFEST, CARD, ".gitattributes", ".cache", ".git", ".huggingface"}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against its manifest.

    Attributes:
        name: The folder's name.
        path: The folder.
        manifest: Its manifest.
    """

    name: str
    path: Path
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is: "dalle1"."""
        return self.manifest["kind"]

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Its measured scores, if there are any."""
        if EVALUATION not in self.manifest["files"]:
            return None
        return json.loads((self.path / EVALUATION).read_text("utf-8"))

    def size_bytes(self) -> int:
        """Bytes of all its files."""
        names = [MANIFEST, CARD, *self.manifest["files"]]
        return sum((self.path / name).stat().st_size for name in names)


def find_bundle(name: str) -> Path:
    """Where a bundle is.

    Args:
        name: A local folder, a shipped model, or a Hugging Face repository "owner/name".

    Raises:
        UnknownNameError: There is none of this name.
        BundleError: The repository cannot be fetched.
    """
    path = Path(name).expanduser()
    if (path / MANIFEST).exists() or path.is_dir():
        return path
    if name in shipped_bundles():
        return SHIPPED / name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _fetch(name)
    raise UnknownNameError("model", name, shipped_bundles())


def shipped_bundles() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check every file against it.

    Raises:
        BundleError: A file is missing, altered, foreign, or a pickle.
    """
    manifest = _read_manifest(path / MANIFEST)
    for entry in sorted(path.iterdir()):
        if entry.name in manifest["files"] or entry.name in _IGNORED:
            continue
        if entry.suffix in _PICKLE_SUFFIXES:
            raise BundleError(
                f"{entry} is a pickle, which can run any program when it is read",
                hint="remove it; weights belong in .safetensors files",
            )
        raise BundleError(
            f"{entry} is no file of this bundle",
            expected="only " + ", ".join(sorted(manifest["files"])),
            hint="move it elsewhere",
        )
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{file} is missing", hint="copy or download the bundle again")
        if file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
            _refuse_pickle(file)
            raise BundleError(
                f"{file} is not what the manifest says: it was altered or cut short",
                hint="copy or download the bundle again",
            )
    return Bundle(path.resolve().name, path, manifest)


def write_bundle(
    folder: Path,
    *,
    kind: str,
    weights: dict[str, nn.Module],
    texts: dict[str, str],
    config: dict[str, Any],
    about: dict[str, Any],
    card: str,
) -> Bundle:
    """Write a bundle; its manifest comes last, so that a bundle with one is whole.

    Args:
        folder: Where.
        kind: What it is.
        weights: Models by the name of their file, without its suffix; stored as float16.
        texts: Contents of further files by name.
        config: JSON data from which the models are built anew.
        about: JSON data on where it comes from.
        card: The model card, as Markdown.

    Raises:
        OutputError: The disk is full or read-only.
    """
    make_folder(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, model in weights.items():
        with atomic_path(folder / f"{name}.safetensors") as path:
            save_file({key: _half(t) for key, t in model.state_dict().items()}, path)
    for name, text in texts.items():
        write_text(folder / name, text)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": config,
        "about": about,
        "files": {},
    }
    names = [f"{name}.safetensors" for name in weights] + list(texts)
    return _seal(folder, manifest, names, card)


def add_to_bundle(bundle: Bundle, texts: dict[str, str], *, card: str, **changes: Any) -> Bundle:
    """Add or replace text files of a bundle, and top-level entries of its manifest."""
    for name, text in texts.items():
        write_text(bundle.path / name, text)
    names = sorted({*bundle.manifest["files"], *texts})
    return _seal(bundle.path, {**bundle.manifest, **changes}, names, card)


def load_weights(bundle: Bundle, name: str, model: nn.Module) -> None:
    """Load a model's weights from a checked bundle, as float32.

    Raises:
        BundleError: They are no safetensors, or do not fit the model.
    """
    path = bundle.path / f"{name}.safetensors"
    try:
        state = {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in load_file(path).items()
        }
        model.load_state_dict(state)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error})") from error
    except SafetensorError as error:
        _refuse_pickle(path)
        raise BundleError(f"{path} is no safetensors file ({error})") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{path} does not fit the model of {MANIFEST}: {reason}") from error


def _seal(folder: Path, manifest: dict[str, Any], names: list[str], card: str) -> Bundle:
    write_text(folder / CARD, card)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
    }
    manifest = {**manifest, "files": files}
    write_json(folder / MANIFEST, manifest)
    return Bundle(folder.resolve().name, folder, manifest)


def _half(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor


def _read_manifest(path: Path) -> dict[str, Any]:
    hint = "a bundle is a folder that `armchair train` writes"
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is too large for a manifest", hint=hint)
        manifest = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error})", hint=hint) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{path} is not of an armchair bundle", hint=hint)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version",
            got=manifest.get("format_version"),
            expected=str(FORMAT_VERSION),
            hint="a newer armchair may have written it: upgrade",
        )
    files = manifest.get("files")
    well_formed = isinstance(files, dict) and all(
        Path(name).name == name
        and isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("bytes"), int)
        for name, entry in files.items()
    )
    for key, kind in (("kind", str), ("config", dict), ("about", dict)):
        well_formed = well_formed and isinstance(manifest.get(key), kind)
    if not well_formed:
        raise BundleError(f"{path} is damaged", hint="copy or download the bundle again")
    return manifest


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        raise BundleError(
            f"{path} is a pickle under another name, which can run any program when it is read",
            expected="a safetensors file",
            hint="do not trust where it came from",
        )


def _fetch(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.md"]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds, none of them ours
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BundleError(
            f"the repository {repository} could not be fetched ({reason})",
            hint="check its name and the network, or give a local folder",
        ) from error
