"""A bundle: a trained model as a folder that says what it is and proves that it is whole.

    manifest.json            format, kind, configs, provenance, sampling defaults, checksums
    README.md                the model card
    tokenizer.json           the text vocabulary (or merges.txt, OpenAI's)
    *.safetensors            weights, as float16
    evaluation.json          scores, once measured

Nothing in it is ever unpickled. Where bundles are found says `armchair.pipelines.bundle_search`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from armchair.core.config import from_dict
from armchair.core.errors import BundleError, UsageError
from armchair.core.files import (
    make_folder,
    output_error,
    sha256,
    write_json,
    write_text,
)
from armchair.core.tensors import save_tensors
from armchair.nn.skeletons import skeletons

FORMAT = "armchair-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CARD = "README.md"
EVALUATION = "evaluation.json"
MAX_MANIFEST_BYTES = 4 << 20

_FOREIGN = "the files are of different models, or a newer armchair wrote them: upgrade"
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"}
_IGNORED = {MANIFEST, CARD, EVALUATION, ".gitattributes", ".cache", ".git", ".huggingface"}

Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against its manifest.

    Attributes:
        name: The folder's name, or the repository's.
        path: The folder.
        manifest: Its manifest.
    """

    name: str
    path: Path
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is: "dalle1", "dalle2" or "clip"."""
        return self.manifest["kind"]

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Its measured scores, if there are any."""
        if EVALUATION not in self.manifest["files"]:
            return None
        return json.loads((self.path / EVALUATION).read_text("utf-8"))

    @property
    def card(self) -> str:
        """Its model card, which people may edit; a bare title if there is none.

        Raises:
            BundleError: It cannot be read.
        """
        path = self.path / CARD
        if not path.exists():
            return f"# {self.name}\n"
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(
                f"{path} cannot be read ({error})", hint="save it as UTF-8"
            ) from error

    def size_bytes(self) -> int:
        """Bytes of all its files."""
        paths = [self.path / name for name in (MANIFEST, CARD, *self.manifest["files"])]
        return sum(path.stat().st_size for path in paths if path.is_file())


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check every file against it.

    Raises:
        BundleError: A file is missing, altered, foreign, unreadable, or a pickle.
    """
    manifest = _read_manifest(path / MANIFEST)
    try:
        _check_files(path, manifest["files"])
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error})") from error
    return Bundle(_name(path), path, manifest)


def _name(path: Path) -> str:
    """A folder's name; of a snapshot in Hugging Face's cache, that of its repository."""
    path = path.resolve()
    if path.parent.name == "snapshots":  # models--OWNER--NAME/snapshots/COMMIT
        return path.parent.parent.name.rpartition("--")[2]
    return path.name


def _check_files(path: Path, files: dict[str, dict[str, Any]]) -> None:
    for entry in sorted(path.iterdir()):
        if entry.name in files or entry.name in _IGNORED:
            continue
        if entry.suffix in _PICKLE_SUFFIXES:
            raise BundleError(
                f"{entry} is a pickle, which can run any program when it is read",
                hint="remove it; weights belong in .safetensors files",
            )
        raise BundleError(
            f"{entry} is no file of this bundle",
            expected="only " + ", ".join(sorted(files)),
            hint="move it elsewhere",
        )
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{file} is missing")
        if file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
            _refuse_pickle(file)
            raise BundleError(f"{file} is not what the manifest says: it was altered or cut short")


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
    """Write a bundle in place of the one that stands there, if any.

    Its manifest comes last, so that a folder with one is whole.

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
    names = [f"{name}.safetensors" for name in weights] + list(texts)
    _remove_bundle(folder, [*names, CARD, MANIFEST])
    for name, model in weights.items():
        tensors = {key: _half(tensor) for key, tensor in model.state_dict().items()}
        save_tensors(folder / f"{name}.safetensors", tensors)
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
    return _seal(folder, manifest, names, card)


def record_scores(
    bundle: Bundle, scores: str, *, card: str, config: dict[str, Any] | None = None
) -> Bundle:
    """Write what was measured of a bundle into it.

    A process that is killed leaves a whole bundle, without scores at worst.

    Args:
        bundle: The bundle.
        scores: The contents of evaluation.json.
        card: The model card with them.
        config: What its models are built from, if that was measured too.

    Raises:
        OutputError: The disk is full or read-only.
    """
    manifest = {**bundle.manifest, "config": config or bundle.manifest["config"]}
    names = sorted({*manifest["files"]} - {EVALUATION})
    _seal(bundle.path, manifest, names, card)
    write_text(bundle.path / EVALUATION, scores)
    return _seal(bundle.path, manifest, [*names, EVALUATION], card)


def read_config(bundle: Bundle, kind: str, config: type[Config]) -> Config:
    """The configurations from which a bundle's models are built.

    Args:
        bundle: The bundle.
        kind: What it must be.
        config: The dataclass that holds them.

    Raises:
        BundleError: The bundle is of another kind, or its configurations are not such.
    """
    if bundle.kind != kind:
        hint = f"`armchair info {bundle.path}` tells what it is for"
        raise BundleError(f"{bundle.path}: kind", got=bundle.kind, expected=kind, hint=hint)
    try:
        return from_dict(config, bundle.manifest["config"])
    except UsageError as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{bundle.path}: {reason}", hint=_FOREIGN) from error


def load_weights(
    bundle: Bundle, name: str, build: Callable[[], Model], *, num_layers: int
) -> Model:
    """Build a model and give it its weights from a checked bundle, as float32.

    The manifest decides the sizes, and may ask for any: the model is built without memory of its
    own and takes that of the file. No random number is drawn.

    Args:
        bundle: The bundle.
        name: The file of the weights, without its suffix.
        build: Builds the model.
        num_layers: How many layers it will build, each with tensors of its own.

    Raises:
        BundleError: The weights are no safetensors, or do not fit the model.
    """
    path = bundle.path / f"{name}.safetensors"
    misfit = f"{path} does not fit the model of {MANIFEST}"
    try:
        state = load_file(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error})") from error
    except SafetensorError as error:
        _refuse_pickle(path)
        raise BundleError(f"{path} is no safetensors file ({error})") from error
    if num_layers > len(state):
        got, expected = f"{len(state)} tensors", f"{num_layers} layers"
        raise BundleError(misfit, got=got, expected=expected, hint=_FOREIGN)
    try:
        with skeletons():
            model = build()
        kinds = {key: tensor.dtype for key, tensor in model.state_dict().items()}
        state = {key: t.to(kinds.get(key, t.dtype), copy=True) for key, t in state.items()}
        model.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError) as error:  # TypeError: a size of more than 64 bits
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{misfit}: {reason}", hint=_FOREIGN) from error
    return model


def _remove_bundle(folder: Path, written: list[str]) -> None:
    """Remove what the manifest lists, then itself, so that an interrupted removal can go on.

    With it goes what a killed process was writing of the files to be written; see `atomic_path`.
    """
    path = folder / MANIFEST
    try:
        names = list(_read_manifest(path)["files"])
    except BundleError:  # none, or a damaged one, which is in the way all the same
        names = []
    try:
        for name in [*names, MANIFEST]:
            path = folder / name
            path.unlink(missing_ok=True)
        for name in written:
            for path in folder.glob(f".{name}." + "?" * 8):
                path.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def _seal(folder: Path, manifest: dict[str, Any], names: list[str], card: str) -> Bundle:
    write_text(folder / CARD, card)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
    }
    manifest = {**manifest, "files": files}
    write_json(folder / MANIFEST, manifest)
    return Bundle(_name(folder), folder, manifest)


def _half(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor


def _read_manifest(path: Path) -> dict[str, Any]:
    hint = "a bundle is a folder that `armchair train` writes"
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
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
        and name.strip(".")
        and isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("bytes"), int)
        for name, entry in files.items()
    )
    for key, kind in (("kind", str), ("config", dict), ("about", dict)):
        well_formed = well_formed and isinstance(manifest.get(key), kind)
    if not well_formed:
        raise BundleError(f"{path} is damaged")
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
