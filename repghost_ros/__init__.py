"""RepGhost image classification for ROS 2: message -> frame -> NV12 -> backend -> scores -> message."""
