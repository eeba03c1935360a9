"""`python -m repghost_ros.cli`: the `repghost` command where it is not on PATH."""

import sys

from repghost_ros.cli import main

if __name__ == "__main__":  # workers of a fleet import this module, too
    sys.exit(main())
