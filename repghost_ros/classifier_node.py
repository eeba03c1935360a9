"""The lifecycle node: images in, vision_msgs classifications out."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import VisionInfo

from repghost_ros import messages
from repghost_ros.backends import BackendError
from repghost_ros.classifier import Classifier, open_classifier
from repghost_ros.executors import fastest_executor, spin
from repghost_ros.frame import Frame, FrameError, from_compressed, from_image
from repghost_ros.intake import Intake
from repghost_ros.labels import LabelsError
from repghost_ros.nv12 import to_nv12
from repghost_ros.overlay import draw_overlay, picture
from repghost_ros.parameters import ParameterError, Parameters, declare_parameters
from repghost_ros.pipeline import Answer, Pipeline, Stream
from repghost_ros.scores import top_k
from repghost_ros.store import StoreError

_LOAD_ERRORS = (BackendError, StoreError, LabelsError)
_MODEL_PARAMETERS = (
    "model",
    "model_path",
    "labels_path",
    "backend",
    "backend_options",
)


class ClassifierNode(LifecycleNode):
    """Classifies every frame of `image`; see the README for its topics and parameters.

    Args:
        node_name: name of the node.
        kwargs: passed on to rclpy's node, so that it composes into any process and executor.

    Raises:
        ParameterError: an initial parameter value is refused.
    """

    def __init__(self, node_name: str = "repghost", **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        self._classifier: Classifier | None = None
        self._pipeline: Pipeline | None = None
        self._stream: Stream | None = None
        self._intake: Intake | None = None
        self._parameters_now = declare_parameters(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        if self._parameters_now.autostart:
            # Steady time: with use_sim_time there may be no clock yet.
            self._autostart_timer = self.create_timer(
                0.0, self._autostart, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # --- lifecycle -------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and advertise the topics."""
        try:
            self._classifier = self._open(self._parameters_now)
        except _LOAD_ERRORS as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._classifications = self.create_lifecycle_publisher(
            messages.Classification, "~/classification", 10
        )
        self._vision_info = self.create_lifecycle_publisher(VisionInfo, "~/vision_info", latched)
        self._overlay = self.create_lifecycle_publisher(Image, "~/overlay", 1)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the workers and subscribe."""
        assert self._classifier is not None
        now = self._parameters_now
        try:
            self._pipeline = Pipeline(self._classifier, now.workers)
        except BackendError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self._announce(self._classifier)
        self._stream = self._pipeline.open_stream(self._convert, self._deliver, now.queue_depth)
        topic = self.resolve_topic_name("image")
        compressed = now.image_transport == "compressed"
        qos = QoSProfile(
            depth=now.qos_depth, reliability=ReliabilityPolicy[now.qos_reliability.upper()]
        )
        self._intake = Intake(
            self,
            CompressedImage if compressed else Image,
            # As image_transport does it, so that remapping `image` serves both.
            f"{topic}/compressed" if compressed else topic,
            self._stream.submit,
            qos,
        )
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, answer the frames in work and end the workers."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the model and withdraw the topics."""
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and unload from whichever state."""
        self._stop()
        self._unload()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Stop, unload and leave the graph."""
        self._stop()
        self._unload()
        super().destroy_node()

    def _stop(self) -> None:
        if self._intake is not None:
            self._intake.close()
            self._intake = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
            self._stream = None

    def _unload(self) -> None:
        if self._classifier is not None:
            self._classifier.close()
            self._classifier = None
            for publisher in (self._classifications, self._vision_info, self._overlay):
                self.destroy_publisher(publisher)

    # --- model and parameters --------------------------------------------------------------------

    def _open(self, parameters: Parameters) -> Classifier:
        classifier = open_classifier(
            parameters.model,
            model_path=parameters.model_path,
            labels_path=parameters.labels_path,
            backend=parameters.backend,
            options=parameters.backend_options,
            progress=self._log_progress,
        )
        self.get_logger().info(
            f"model '{classifier.model}' ({classifier.classes} classes, "
            f"{classifier.width}x{classifier.height}) from {classifier.path} on {classifier.name}"
        )
        return classifier

    def _log_progress(self, done: int, total: int) -> None:
        self.get_logger().info(
            f"downloading: {done / 1e6:.1f} of {total / 1e6:.1f} MB", throttle_duration_sec=2.0
        )

    def _announce(self, classifier: Classifier) -> None:
        """Publish which model answers from now on and the names of its classes."""
        labels = Parameter("class_labels", value=list(classifier.labels))
        if self.has_parameter(labels.name):
            self.set_parameters([labels])
        else:
            self.declare_parameter(
                labels.name,
                labels.value,
                ParameterDescriptor(description="Class names in index order; set by the node."),
                ignore_override=True,
            )
        header = Header(stamp=self.get_clock().now().to_msg())
        location = f"{self.get_fully_qualified_name()}/{labels.name}"
        method = f"RepGhost {classifier.model}"
        self._vision_info.publish(messages.vision_info(header, method, location))

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        before = self._parameters_now
        try:
            after = before.changed(parameters)
            self._check_labels(parameters)
            reload = any(getattr(before, n) != getattr(after, n) for n in _MODEL_PARAMETERS)
            if reload and self._classifier is not None:
                self._swap(after)
        except (ParameterError, *_LOAD_ERRORS) as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._parameters_now = after
        return SetParametersResult(successful=True)

    def _check_labels(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            labels = self._classifier.labels if self._classifier else ()
            if parameter.name == "class_labels" and tuple(parameter.value) != labels:
                raise ParameterError("parameter 'class_labels' is set by the node: set labels_path")

    def _swap(self, parameters: Parameters) -> None:
        """Load the new model beside the old one, then let it take over between two frames."""
        old, new = self._classifier, self._open(parameters)
        assert old is not None
        if self._pipeline is not None:
            try:
                self._pipeline.swap(new)
            except BackendError:
                new.close()
                raise
        self._classifier = new
        old.close()
        if self._pipeline is not None:
            self._announce(new)

    # --- frames: called in the pipeline's workers ------------------------------------------------

    def _frame(self, message: Any) -> Frame:
        return from_image(message) if isinstance(message, Image) else from_compressed(message)

    def _convert(self, answer: Answer, out: np.ndarray) -> None:
        now = self._parameters_now
        to_nv12(
            self._frame(answer.message),
            out,
            resize=now.resize,
            color_range=answer.backend.color_range,
            source_color_range=now.source_color_range,
        )

    def _deliver(self, answer: Answer) -> None:
        now = self._parameters_now
        if answer.logits is None:
            self.get_logger().error(f"frame refused: {answer.error}", throttle_duration_sec=1.0)
            return
        labels = answer.backend.labels
        results = [
            (labels[score.index] if now.class_id == "label" else str(score.index), score.probability)
            for score in top_k(answer.logits, now.top_k, now.score_threshold)
        ]
        header = answer.message.header
        self._classifications.publish(messages.classification(header, results))
        if self._overlay.get_subscription_count():
            rgb = picture(self._frame(answer.message), now.source_color_range)
            draw_overlay(rgb, results)
            self._overlay.publish(messages.image(header, rgb))


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    rclpy.init(args=args)
    try:
        node = ClassifierNode()
    except ParameterError as error:
        sys.exit(f"repghost: {error}")
    executor = fastest_executor(node.context)
    executor.add_node(node)
    try:
        spin(executor, node.context)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
