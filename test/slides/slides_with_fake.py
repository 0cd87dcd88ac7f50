"""`softctm` with the fake detector, also in the workers that it starts; $FAKE_SLOWNESS seconds a field."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_detector import FakeDetector

from softctm.inference import load


class Slow(FakeDetector):
    def tissue_map(self, image):
        time.sleep(float(os.environ.get("FAKE_SLOWNESS", "0")))
        return super().tissue_map(image)

    def find_cells(self, image, context):
        time.sleep(float(os.environ.get("FAKE_SLOWNESS", "0")))
        return super().find_cells(image, context)


load.open_detector = lambda options, *tasks, callers=1: Slow()

if __name__ == "__main__":
    from softctm.cli import main

    sys.exit(main())
