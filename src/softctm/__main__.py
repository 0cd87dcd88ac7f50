"""`python -m softctm` is the `softctm` command."""

import sys

from softctm.cli import main

if __name__ == "__main__":
    sys.exit(main())
