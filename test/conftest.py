"""Fixtures that every test may use, and the one shim that a CPU-only machine needs."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SIX_PAIRS = ("004", "067", "120", "182", "250", "296")
_KEPT_ALIVE: list[Any] = []


def _define_missing_torchvision_operators() -> None:
    """Let a CUDA build of torchvision import beside a CPU build of torch, which lacks its two operators."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT_ALIVE.append(library)


_define_missing_torchvision_operators()

# Jobs that a shell runs in the background ignore Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference data folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def six_pairs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of six of OCELOT's pairs: links to its files, and its metadata cut to them."""
    folder = tmp_path_factory.mktemp("release")
    metadata = json.loads((shared / "ocelot" / "metadata.json").read_text())
    metadata["sample_pairs"] = {name: metadata["sample_pairs"][name] for name in SIX_PAIRS}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    for place, suffix in (
        ("images/train/cell", "jpg"),
        ("images/train/tissue", "jpg"),
        ("annotations/train/cell", "csv"),
        ("annotations/train/tissue", "png"),
    ):
        (folder / place).mkdir(parents=True)
        for name in SIX_PAIRS:
            (folder / place / f"{name}.{suffix}").symlink_to(shared / "ocelot" / place / f"{name}.{suffix}")
    return folder
