"""Frames in flight: bounded queues, parallel workers, answers in order."""
