# SPDX-License-Identifier: Apache-2.0
"""`python -m repghost_ros.cli`: the `repghost` command if it is not on PATH."""

from repghost_ros.cli import command

if __name__ == "__main__":  # workers of a fleet import this module, too
    command()
