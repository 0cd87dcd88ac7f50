"""`make demo`: the main job on the made-up sample, then what it found, pair by pair.

The default model if `model_weights/` holds one, else the networks that `test/hand_set_networks.py` writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from softctm.cli import main as softctm

ROOT = Path(__file__).resolve().parents[1]
SAMPLE, HAND_SET, DEFAULT = ROOT / "test/input", ROOT / "test/hand_set", ROOT / "model_weights"
OUTPUT = ROOT / "demo-output"


def main() -> int:
    """Run, summarize, score; return the exit code of what failed first."""
    weights = DEFAULT
    if not (DEFAULT / "model.json").is_file():
        weights = HAND_SET
        print("model_weights/ holds no trained model: using small networks set by hand, for show only")
    code = softctm(["predict", "--input", str(SAMPLE), "--output", str(OUTPUT), "--weights", str(weights)])
    if code:
        return code
    record = json.loads((OUTPUT / "run.json").read_text())
    print(f"\n{'pair':8}{'background cells':>18}{'tumor cells':>13}{'seconds':>9}")
    for pair in record["pairs"]:
        print(
            f"{pair['name']:8}{pair['background_cells']:>18}{pair['tumor_cells']:>13}{pair['seconds']:>9.1f}"
        )
    print(f"\nAgainst the cells that were drawn ({SAMPLE.relative_to(ROOT)}/truth/cell_gt.json):", flush=True)
    predictions = OUTPUT / "cell_classification.json"
    code = softctm(
        ["evaluate", "--predictions", str(predictions), "--truth", str(SAMPLE / "truth/cell_gt.json")]
    )
    print(f"\nResult: {predictions}\nRun:    {OUTPUT / 'run.json'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
