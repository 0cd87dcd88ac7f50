"""`make demo`: the default model on the two real pairs of examples/ocelot, which it has never seen."""

from __future__ import annotations

import sys
from pathlib import Path

from softctm.cli import main as softctm
from softctm.writers.grand_challenge import FILE_NAME

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, MODEL, OUTPUT = ROOT / "examples/ocelot", ROOT / "model_weights", ROOT / "demo-output"


def main() -> int:
    """Find the cells, draw them, score them; return the exit code of what failed first."""
    folders = ["--input", str(EXAMPLE), "--output", str(OUTPUT), "--weights", str(MODEL)]
    code = softctm(["predict", *folders, "--also", "overview"])
    if code:
        return code
    pictures = [picture.replace(OUTPUT / picture.name) for picture in (OUTPUT / "overview").glob("*.png")]
    (OUTPUT / "overview").rmdir()
    print(
        f"\nAgainst the annotations of {EXAMPLE.relative_to(ROOT)} (patients that no network saw):",
        flush=True,
    )
    code = softctm(["evaluate", "--predictions", str(OUTPUT / FILE_NAME), "--truth", str(EXAMPLE)])
    for path in (*sorted(pictures), OUTPUT / FILE_NAME, OUTPUT / "run.json"):
        print(f"wrote {path.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
