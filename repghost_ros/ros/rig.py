# SPDX-License-Identifier: Apache-2.0
"""The cameras of a node together: their topics, their intake, and what is announced beside them."""

from __future__ import annotations

import threading

from diagnostic_msgs.msg import DiagnosticStatus

from repghost_ros.engine.model import Model
from repghost_ros.engine.pipeline import Pipeline
from repghost_ros.engine.request import Counts
from repghost_ros.ros.announcement import Announcement
from repghost_ros.ros.camera import Camera, ImageCamera
from repghost_ros.ros.diagnostics import camera_status
from repghost_ros.ros.intake import Intake
from repghost_ros.ros.lifecycle import LifecycleNode
from repghost_ros.ros.parameters import Settings
from repghost_ros.ros.regions import RegionCamera


class CameraRig:
    """All cameras of a node; advertised while it is configured, open while it is active.

    Args:
        node: subscribes and publishes.
        settings: the node's.

    """

    def __init__(self, node: LifecycleNode, settings: Settings) -> None:
        self._node = node
        self._settings = settings
        self._changing = threading.RLock()
        """Held while a transition creates or destroys what is below, and while it is used."""
        self._cameras: list[Camera] = []
        self._announcement: Announcement | None = None
        self._intake: Intake | None = None

    def advertise(self) -> None:
        """Create the cameras and advertise the topics."""
        now = self._settings.parameters
        names = [name for name in now.cameras if name] or [""]
        kind = RegionCamera if now.detections else ImageCamera
        with self._changing:
            self._announcement = Announcement(self._node)
            for name in names:
                self._cameras.append(kind(self._node, name, self._settings))

    def open(self, pipeline: Pipeline, model: Model | None) -> None:
        """Announce the model, then subscribe to the images."""
        now = self._settings.parameters
        with self._changing:
            self._announce(model)
            for camera in self._cameras:
                camera.open(pipeline)
            self._intake = Intake(self._node, pipeline.bell)
            for camera in self._cameras:
                camera.subscriptions = [
                    self._intake.subscribe(candidates, now.image_qos, callback)
                    for candidates, callback in camera.inputs
                ]
                qos = camera.subscriptions[0].qos
                self._node.get_logger().info(
                    f"serving {camera.sources[0]}, {qos.reliability.name.lower()}, depth {qos.depth}, "
                    f"on {camera.answers_topic}"
                )

    def close(self) -> None:
        """Unsubscribe; frames in flight are still answered."""
        with self._changing:
            if self._intake is not None:
                self._intake.close()
                self._intake = None

    def withdraw(self) -> None:
        """Withdraw the topics."""
        with self._changing:
            for camera in self._cameras:
                camera.destroy()
            self._cameras = []
            if self._announcement is not None:
                self._announcement.destroy()
                self._announcement = None

    def follow(self, model: Model | None) -> None:
        """Announce the model that answers now, and unsubscribe where nobody listens, if lazy."""
        lazy = self._settings.parameters.lazy
        with self._changing:
            if self._intake is None:
                return
            self._announce(model)
            for camera in self._cameras:
                wanted = not lazy or camera.has_listeners
                for subscription in camera.subscriptions:
                    self._intake.pause(subscription, paused=not wanted)

    def _announce(self, model: Model | None) -> None:
        if model is not None and self._announcement is not None:
            self._announcement.announce(model, self._settings.parameters.score_threshold)

    @property
    def counts(self) -> Counts:
        """The frames of all cameras since they were opened."""
        return sum((camera.counts for camera in self._cameras), start=Counts())

    def end_period(self) -> None:
        """Let the next statuses begin now."""
        for camera in self._cameras:
            camera.end_period()

    def statuses(self, name: str, runtime: str) -> list[DiagnosticStatus]:
        """Return a status for every camera, over the time since the last call.

        Args:
            name: the node's, as diagnostics show it.
            runtime: of the model.

        """
        thresholds = self._settings.parameters.thresholds
        return [
            camera_status(
                f"{name}: {camera.name or 'image'}",
                runtime,
                camera.report(),
                thresholds,
                camera.paused,
                camera.values,
            )
            for camera in self._cameras
        ]
