"""The wall: only this package, demo/ and launch/ import rclpy and message packages."""
