# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: declared with type, range and description, read as one checked value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from repghost_ros.backends.base import (
    ACTIVATIONS,
    CHANNEL_ORDERS,
    Activation,
    BackendOptions,
    ChannelOrder,
)
from repghost_ros.backends.registry import BACKENDS, BPU_RUNTIMES
from repghost_ros.engine.model import ModelSpec
from repghost_ros.engine.results import CLASS_IDS, UNKNOWN_AS, ClassId, Reporting, UnknownAs
from repghost_ros.engine.threads import threads_beside
from repghost_ros.errors import ParameterError
from repghost_ros.ros.diagnostics import Thresholds
from repghost_ros.vision.boxes import BoxChoice
from repghost_ros.vision.nv12 import (
    COLOR_RANGES,
    INTERPOLATIONS,
    RESIZE_POLICIES,
    ColorRange,
    Interpolation,
    ResizePolicy,
)
from repghost_ros.vision.view import View
from repghost_ros.zoo.catalogue import MODEL_NAMES, nearest
from repghost_ros.zoo.model_file import AUTO
from repghost_ros.zoo.store import is_known

IMAGE_TRANSPORTS = ("auto", "raw", "compressed", "hbmem")
RELIABILITIES = ("best_effort", "reliable")
_PREFIX = re.compile(r"[A-Za-z]\w*(/[A-Za-z]\w*)*", re.ASCII)


@dataclass(frozen=True)
class Declaration:
    """The declaration of a parameter."""

    name: str
    default: Any
    """Its type is the parameter's; tuples are arrays."""
    description: str
    choices: tuple[str, ...]
    """The allowed texts; empty: any."""
    bounds: tuple[float, float] | None
    """The least and the greatest value; None: no limits."""
    read_only: bool
    """True if it can be set only at start-up."""
    of_model: bool
    """True if it selects the model or depends on the model's classes."""


def _parameter(
    default: Any,
    description: str,
    *,
    choices: Iterable[str] = (),
    bounds: tuple[float, float] | None = None,
    read_only: bool = False,
    of_model: bool = False,
) -> Any:
    metadata = {
        "description": description,
        "choices": tuple(choices),
        "bounds": bounds,
        "read_only": read_only,
        "of_model": of_model,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """Every parameter of the node with its default. config/classify.yaml documents them."""

    autostart: bool = _parameter(
        True, "Configure and activate the node by itself at start-up.", read_only=True
    )
    required: bool = _parameter(
        False,
        "End the process with exit code 1 when the model cannot be opened at start-up.",
        read_only=True,
    )
    model: str = _parameter(
        "150",
        "Name of a model, as `repghost models` lists them, or the built-in demo.",
        choices=MODEL_NAMES,
        of_model=True,
    )
    model_path: str = _parameter(
        "", "Your own model file; empty: the file of `model`.", of_model=True
    )
    model_name: str = _parameter(
        "", "Model to use from a compiled file with several; empty: the only one.", of_model=True
    )
    labels_path: str = _parameter(
        "", "Its class names, one per line; empty: the model's own, or ImageNet's.", of_model=True
    )
    backend: str = _parameter(
        "auto",
        "What runs the model; auto: the BPU if there is one.",
        choices=BACKENDS,
        of_model=True,
    )
    bpu_runtime: str = _parameter(
        "auto",
        "Library that drives the BPU; auto: the fastest one available.",
        choices=BPU_RUNTIMES,
        of_model=True,
    )
    bpu_core: int = _parameter(0, "BPU core; 0: any.", bounds=(0, 2), of_model=True)
    bpu_priority: int = _parameter(
        0, "Task priority on the BPU; 255 is highest.", bounds=(0, 255), of_model=True
    )
    bpu_timeout: float = _parameter(
        1.0,
        "Seconds after which an inference on the BPU counts as failed.",
        bounds=(0.01, 60.0),
        of_model=True,
    )
    activation: Activation = _parameter(
        "auto",
        "How outputs become scores; auto: by the end of the graph, else by the answers.",
        choices=ACTIVATIONS,
        of_model=True,
    )
    onnx_providers: tuple[str, ...] = _parameter(
        ("auto",),
        "ONNX Runtime execution providers, such as cuda, the best first; auto: all available.",
        of_model=True,
    )
    onnx_threads: int = _parameter(
        1,
        "Threads per inference of ONNX Runtime, limited to each worker's share of the cores; "
        "0: all of that share.",
        bounds=(0, 64),
        of_model=True,
    )
    mean: tuple[float, ...] = _parameter(
        (0.0, 0.0, 0.0),
        "Subtracted from R, G, B of an ONNX model's input; used only if scale is set.",
        of_model=True,
    )
    scale: tuple[float, ...] = _parameter(
        (0.0, 0.0, 0.0),
        "Multiplied with the difference; zeros: mean and scale from the model, or ImageNet's.",
        of_model=True,
    )
    channel_order: ChannelOrder = _parameter(
        "auto",
        "Channel order of an ONNX model; auto: from the model, or rgb.",
        choices=CHANNEL_ORDERS,
        of_model=True,
    )
    top_k: int = _parameter(5, "Number of classes to report, best first.", bounds=(1, 1000))
    score_threshold: float = _parameter(
        0.0, "Least probability of a reported class.", bounds=(0.0, 1.0)
    )
    temperature: float = _parameter(
        1.0,
        "Divides the logits; `repghost eval --report` fits a value that calibrates scores.",
        bounds=(0.01, 100.0),
    )
    class_id: ClassId = _parameter("label", "How results give the class.", choices=CLASS_IDS)
    class_allow: tuple[str, ...] = _parameter(
        ("",),
        "Names of the only classes to report, applied before top_k; empty: all.",
        of_model=True,
    )
    class_deny: tuple[str, ...] = _parameter(
        ("",), "Names of classes never to report, even if allowed; empty: none.", of_model=True
    )
    unknown: UnknownAs = _parameter(
        "label",
        "Answer where a taught model knows no class: the class `unknown`, none, or the best.",
        choices=UNKNOWN_AS,
    )
    smoothing: float = _parameter(
        0.0,
        "Weight of earlier frames in an exponential mean of each camera's probabilities; 0: off.",
        bounds=(0.0, 0.999),
    )
    resize: ResizePolicy | Literal["auto"] = _parameter(
        AUTO,
        "How a frame is fitted to the model's input; auto: as its file says, or stretch.",
        choices=(AUTO, *RESIZE_POLICIES),
    )
    color_range: ColorRange | Literal["auto"] = _parameter(
        AUTO,
        "BT.601 range of the NV12 the model was compiled for; auto: from its file, or full.",
        choices=(AUTO, *COLOR_RANGES),
        of_model=True,
    )
    source_color_range: ColorRange = _parameter(
        "limited", "BT.601 range of the camera's YUV frames.", choices=COLOR_RANGES
    )
    interpolation: Interpolation = _parameter(
        "antialiased",
        "How frames are scaled; bilinear: as the model zoo's samples do, to compare with them.",
        choices=INTERPOLATIONS,
    )
    roi: tuple[int, ...] = _parameter(
        (0, 0, 0, 0), "Region to classify: x, y, width, height in pixels; zeros: the whole frame."
    )
    max_rate: float = _parameter(
        0.0,
        "Most frames per second to classify; others are skipped; 0: no limit.",
        bounds=(0.0, 1e4),
    )
    min_rate: float = _parameter(
        0.0, "Answers per second below which diagnostics warn; 0: never.", bounds=(0.0, 1e4)
    )
    max_latency: float = _parameter(
        0.0, "p99 latency in seconds above which diagnostics warn; 0: never.", bounds=(0.0, 1e3)
    )
    stale_after: float = _parameter(
        2.0, "Seconds without a frame after which diagnostics are STALE.", bounds=(0.1, 1e4)
    )
    watchdog: float = _parameter(
        5.0,
        "Seconds after which an inference counts as hanging and the model is reopened.",
        bounds=(0.1, 1e3),
    )
    lazy: bool = _parameter(
        False, "Subscribe to images only while somebody subscribes to an output."
    )
    diagnostics_period: float = _parameter(
        1.0, "Seconds between diagnostics.", bounds=(0.1, 60.0), read_only=True
    )
    cameras: tuple[str, ...] = _parameter(
        ("",),
        "Prefixes of the image topics, such as front, rear; empty: one camera, on image.",
        read_only=True,
    )
    detections: str = _parameter(
        "",
        "Topic with a detector's boxes, which are classified instead of whole images "
        "(vision_msgs/Detection2DArray or ai_msgs/PerceptionTargets); empty: none.",
        read_only=True,
    )
    detections_tolerance: float = _parameter(
        0.0,
        "Seconds by which the stamps of an image and its boxes may differ; 0: they are equal.",
        bounds=(0.0, 10.0),
        read_only=True,
    )
    detections_scale: float = _parameter(
        1.0,
        "What the sides of a box are multiplied by: above 1.0 the model sees some surroundings.",
        bounds=(0.1, 10.0),
    )
    detections_classes: tuple[str, ...] = _parameter(
        ("",), "Classes of the detector whose boxes are classified; empty: all."
    )
    detections_max: int = _parameter(
        32, "How many boxes of an image are classified at most.", bounds=(1, 1000)
    )
    image_transport: str = _parameter(
        "auto",
        "Topic to subscribe to: image (raw, hbmem), image/compressed, or the published one (auto).",
        choices=IMAGE_TRANSPORTS,
        read_only=True,
    )
    hold: float = _parameter(
        0.0,
        "Seconds for which a new top class must last to be published on ~/changed; 0: never.",
        bounds=(0.0, 3600.0),
        read_only=True,
    )
    perception: bool = _parameter(
        False, "Also publish ai_msgs/PerceptionTargets, for the RDK's own nodes.", read_only=True
    )
    qos_reliability: str = _parameter(
        "best_effort",
        "Reliability of the subscription; best_effort matches every publisher.",
        choices=RELIABILITIES,
        read_only=True,
    )
    qos_depth: int = _parameter(
        5, "History depth of the subscription.", bounds=(1, 1000), read_only=True
    )
    output_qos_reliability: str = _parameter(
        "reliable",
        "Reliability of the answers; reliable matches every subscriber.",
        choices=RELIABILITIES,
        read_only=True,
    )
    output_qos_depth: int = _parameter(
        10, "History depth of the answers.", bounds=(1, 1000), read_only=True
    )
    workers: int = _parameter(
        4,
        "Frames, or batches of them, converted and inferred at the same time.",
        bounds=(1, 64),
        read_only=True,
    )
    queue_depth: int = _parameter(
        4,
        "Frames that may wait for a worker; beyond that the oldest is dropped.",
        bounds=(1, 1000),
        read_only=True,
    )

    def __post_init__(self) -> None:
        prefixes = [camera for camera in self.cameras if camera]
        if len(set(prefixes)) < len(prefixes) or not all(map(_PREFIX.fullmatch, prefixes)):
            raise ParameterError(
                f"parameter 'cameras' cannot be {list(self.cameras)}: give each camera a relative "
                "topic prefix of its own, such as front or arm/left"
            )
        for declared in DECLARATIONS.values():
            value = getattr(self, declared.name)
            if declared.choices is MODEL_NAMES and is_known(value):
                continue
            if declared.choices and value not in declared.choices:
                likely = nearest(str(value), declared.choices)
                meant = f"did you mean '{likely}'? " if likely else ""
                raise ParameterError(
                    f"parameter '{declared.name}' cannot be '{value}': {meant}choose one of "
                    f"{', '.join(declared.choices)}"
                )
        if self.detections and any(self.roi):
            raise ParameterError(
                "parameter 'roi' is for whole images: leave it at zeros where 'detections' is set"
            )
        # Their constructors check the rest.
        _ = self.view, self.reporting, self.box_choice

    @cached_property
    def spec(self) -> ModelSpec:
        """The model to open."""
        options = BackendOptions(
            bpu_runtime=self.bpu_runtime,
            bpu_core=self.bpu_core,
            bpu_priority=self.bpu_priority,
            timeout_s=self.bpu_timeout,
            color_range=self.color_range,
            activation=self.activation,
            onnx_providers=self.onnx_providers,
            onnx_threads=threads_beside(self.workers, self.onnx_threads),
            mean=self.mean if any(self.scale) else (),
            scale=self.scale if any(self.scale) else (),
            channel_order=self.channel_order,
            model_name=self.model_name,
        )
        return ModelSpec(self.model, self.model_path, self.labels_path, self.backend, options)

    @cached_property
    def view(self) -> View:
        """The part of a frame that the model sees, and how it is scaled."""
        return View(self.roi, self.resize, self.source_color_range, self.interpolation)

    @cached_property
    def reporting(self) -> Reporting:
        """The classes to report."""
        allow, deny = (tuple(filter(None, names)) for names in (self.class_allow, self.class_deny))
        return Reporting(
            *(self.top_k, self.score_threshold, self.class_id, self.temperature, allow, deny),
            unknown=self.unknown,
        )

    @cached_property
    def box_choice(self) -> BoxChoice:
        """The boxes of a detector to classify."""
        return BoxChoice(
            self.detections_scale,
            frozenset(filter(None, self.detections_classes)),
            self.detections_max,
        )

    @property
    def image_qos(self) -> QoSProfile:
        """The QoS of an image subscription: always a new object, because qos_overrides change it."""
        return _qos(self.qos_reliability, self.qos_depth)

    @property
    def output_qos(self) -> QoSProfile:
        """The QoS of a topic with answers: always a new object, because qos_overrides change it."""
        return _qos(self.output_qos_reliability, self.output_qos_depth)

    @property
    def thresholds(self) -> Thresholds:
        """The limits beyond which diagnostics are no longer OK."""
        return Thresholds(self.min_rate, self.max_latency, self.stale_after)

    def of_model(self) -> dict[str, Any]:
        """Return the parameters that select the model or depend on its classes, by name."""
        return {
            declared.name: getattr(self, declared.name)
            for declared in DECLARATIONS.values()
            if declared.of_model
        }

    def changed(self, parameters: Iterable[Parameter]) -> Parameters:
        """Return a copy with these ROS parameters applied; unknown names are ignored.

        Raises:
            ParameterError: a value has the wrong type or is not one of the parameter's choices.

        """
        given = [p for p in coerced(parameters) if p.name in DECLARATIONS]
        values: dict[str, Any] = {
            p.name: tuple(p.value) if isinstance(DECLARATIONS[p.name].default, tuple) else p.value
            for p in given
            if p.value is not None  # as an empty array of a YAML file is
        }
        return replace(self, **values)


@dataclass
class Settings:
    """What a node's user has set: each field is replaced as a whole, so that any thread may read it."""

    parameters: Parameters
    enabled: bool = True
    """Whether frames are wanted; others are skipped."""


def _qos(reliability: str, depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])


DECLARATIONS = {
    parameter.name: Declaration(parameter.name, parameter.default, **parameter.metadata)
    for parameter in fields(Parameters)
}
"""The declaration of every parameter, by name."""


def coerced(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return ROS parameters converted to their declared types; unknown names are left as they are.

    Command lines, launch files and YAML turn 10.0 into 10, "150" into 150, and a list of one name into
    the name.

    Raises:
        ParameterError: a value cannot be one of that type.

    """
    return [
        Parameter(p.name, value=_coerced(p.name, DECLARATIONS[p.name].default, p.value))
        if p.name in DECLARATIONS and p.value is not None
        else p
        for p in parameters
    ]


def _coerced(name: str, default: Any, value: Any) -> Any:
    """Return `value` in the type of `default`; tuples become lists, ROS's arrays."""
    if isinstance(default, tuple):
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",")]
        if not isinstance(value, (bool, int, float)):
            # An empty array has no type that rclpy could know.
            return [_coerced(name, default[0], item) for item in value] or list(default)
    kind = type(default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if type(value) is kind:
        return value
    if kind is float and is_number:
        return float(value)
    if kind is int and is_number and float(value).is_integer():
        return int(value)
    if kind is str and is_number:
        return str(value)
    raise ParameterError(f"parameter '{name}' cannot be {value!r}: give {_TYPES[kind]}")


_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
}


def _descriptor(declared: Declaration) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=declared.description, read_only=declared.read_only)
    if declared.choices:
        descriptor.additional_constraints = f"One of: {', '.join(declared.choices)}"
    if declared.bounds:
        low, high = declared.bounds
        if isinstance(declared.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


def declare_parameters(node: Node) -> Parameters:
    """Declare every parameter on the node and return the initial values.

    Raises:
        ParameterError: an initial value is refused.

    """
    initial = []
    for declared in DECLARATIONS.values():
        default = declared.default
        if isinstance(default, tuple):  # ROS arrays are lists
            default = list(default)
        # The override is read in whatever type it has, then declared in the parameter's own.
        any_type = ParameterDescriptor(dynamic_typing=True)
        (given,) = coerced([node.declare_parameter(declared.name, default, any_type)])
        node.undeclare_parameter(declared.name)
        value = default if given.value is None else given.value
        try:
            initial.append(
                node.declare_parameter(
                    declared.name, value, _descriptor(declared), ignore_override=True
                )
            )
        except Exception as error:  # rclpy's types differ between distributions
            raise ParameterError(f"parameter '{declared.name}' is refused: {error}") from error
    return Parameters().changed(initial)
