"""Where the model is: what the user says, else the usual places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from softctm.errors import ModelError
from softctm.model.network_file import MANIFEST


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a manifest, or cell networks without one."""
    return (folder / MANIFEST).is_file() or any(folder.glob("cell*.onnx"))


def find_weights(
    flag: Path | str | None = None,
    part: str = "",
    *,
    environment: Mapping[str, str] = os.environ,
    platform_folder: Path = Path("/opt/ml/model"),
) -> Path:
    """The model folder: the flag, else `SOFTCTM_WEIGHTS`, else `/opt/ml/model`, else `model_weights/`.

    The last is looked for beside the program, then in the working directory; `part` is the folder in it
    that holds the model wanted.

    Raises
    ------
    ModelError
        If the folder that was asked for does not exist, or none of the others holds a model.
    """
    named = flag or environment.get("SOFTCTM_WEIGHTS")
    if named:
        source = "--weights" if flag else "SOFTCTM_WEIGHTS"
        if not Path(named).is_dir():
            raise ModelError(f"{named}: no such folder ({source}); name one that holds a model")
        return Path(named)
    beside_program = Path(__file__).resolve().parents[3] / "model_weights"
    candidates = [platform_folder, beside_program / part, Path("model_weights") / part]
    for folder in candidates:
        if holds_model(folder):
            return folder
    looked = ", ".join(dict.fromkeys(str(folder) for folder in candidates))
    raise ModelError(f"no model found in {looked}; give its folder with --weights or SOFTCTM_WEIGHTS")
