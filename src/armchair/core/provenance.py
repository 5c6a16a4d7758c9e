"""Where a result comes from: package version, commit, hardware, date."""

from __future__ import annotations

import datetime
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from armchair.core.device import usable_cores


def version() -> str:
    """The installed version of this package."""
    return metadata.version("armchair")


@cache
def commit() -> str | None:
    """The commit of the checkout that this code runs from, "+" if altered; None outside one."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: torch.device) -> str:
    """The processor in words, such as "AMD EPYC, 2 cores" or "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {usable_cores()} cores"


def today() -> str:
    """The date in UTC, as YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def provenance(device: torch.device) -> dict[str, str | None]:
    """The commit, version, hardware and date that measured scores are of."""
    return {
        "commit": commit(),
        "version": version(),
        "hardware": hardware(device),
        "date": today(),
    }


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
