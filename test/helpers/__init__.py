# SPDX-License-Identifier: Apache-2.0
"""What several test modules share: bags, pictures, models, a server, a robot in the ROS graph."""
