"""`python -m repghost_ros.cli`: the `repghost` command where it is not on PATH."""

import sys

from repghost_ros.cli import main

sys.exit(main())
