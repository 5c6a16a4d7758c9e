"""Where bundles are: in local folders, in the package, and in repositories of Hugging Face."""

from __future__ import annotations

from pathlib import Path

from armchair.core.errors import BundleError, UnknownNameError, UsageError
from armchair.pipelines.bundle import FORMAT, MANIFEST, MAX_MANIFEST_BYTES

SHIPPED = Path(__file__).parent.parent / "bundles"


def find_bundle(name: str, *, field: str = "model") -> Path:
    """Where a bundle is.

    Args:
        name: A local folder, a shipped model, or a Hugging Face repository "owner/name".
        field: What it was given as, for errors.

    Raises:
        UsageError: There is none of this name.
        BundleError: The repository cannot be fetched.
    """
    path = Path(name).expanduser()
    if (path / MANIFEST).exists() or path.is_dir():
        return path
    if name in shipped_bundles():
        return SHIPPED / name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        if path.parent.is_dir():
            raise UsageError(
                field,
                got=name,
                expected="a folder that is there",
                hint=f"`armchair models {path.parent}` lists the models in it",
            )
        return _fetch(name)
    raise UnknownNameError(field, name, shipped_bundles())


def shipped_bundles() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))


def bundles_below(folder: Path) -> list[Path]:
    """The bundles in a folder and its subfolders, damaged ones too."""
    return sorted(path.parent for path in folder.rglob(MANIFEST) if _is_of_a_bundle(path))


def _is_of_a_bundle(manifest: Path) -> bool:
    try:
        if not manifest.is_file() or manifest.stat().st_size > MAX_MANIFEST_BYTES:
            return False
        return FORMAT.encode() in manifest.read_bytes()
    except OSError:
        return False


def _fetch(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.md"]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds, none of them ours
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BundleError(
            f"the repository {repository} could not be fetched ({reason})",
            hint="check its name and the network, or give a local folder",
        ) from error
