# SPDX-License-Identifier: Apache-2.0
"""The RDK's camera -> classes -> the RDK's web page: `ros2 launch repghost_ros rdk_camera.launch.py`.

Needs the RDK's own ROS: `source /opt/tros/humble/setup.bash`. Each part is optional: camera:=none,
websocket:=false.

Further arguments, such as top_k:=3, are passed on to all parts. None is refused, because the vendor's
launch files may take any.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from repghost_ros.ros.launching import require

# What the cameras publish by the defaults of their own launch files.
CAMERAS = {
    "mipi": {"image": "/hbmem_img", "image_transport": "hbmem"},
    "usb": {"image": "/image", "image_transport": "auto"},
    "none": {"image": "image", "image_transport": ""},
}
# The packages of the parts; launch files carry their names, messages are imported by the node.
CAMERA_PACKAGES = {"mipi": ["mipi_cam", "hbm_img_msgs"], "usb": ["hobot_usb_cam"], "none": []}
WEB_PACKAGES = ["websocket", "ai_msgs"]
CODEC = "hobot_codec"  # the page shows JPEG only
REMEDY = (
    "source the RDK's own ROS, /opt/tros/humble/setup.bash, or set camera:=none websocket:=false"
)


def include(package: str, file: str, **arguments: str) -> IncludeLaunchDescription:
    """Include another package's launch file."""
    path = PathJoinSubstitution([FindPackageShare(package), "launch", file])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
    )


def parts(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the requested parts: camera, node and web page."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    camera, websocket = argument("camera"), argument("websocket") == "true"
    encodes = websocket and camera == "mipi"
    packages = [*CAMERA_PACKAGES[camera], *(WEB_PACKAGES if websocket else [])]
    require([*packages, *([CODEC] if encodes else [])], REMEDY)
    from_camera = CAMERAS[camera]
    image = argument("image") or from_camera["image"]
    entities: list[LaunchDescriptionEntity] = []
    if camera != "none":
        package = CAMERA_PACKAGES[camera][0]
        entities.append(include(package, f"{package}.launch.py"))
    entities.append(
        include(
            "repghost_ros",
            "classify.launch.py",
            image=image,
            image_transport=from_camera["image_transport"],
            model=argument("model"),
            perception=argument("websocket"),
        )
    )
    if encodes:
        entities.append(include(CODEC, "hobot_codec_encode.launch.py"))
    if websocket:
        entities.append(
            include(
                "websocket",
                "websocket.launch.py",
                websocket_image_topic="/image_jpeg" if encodes else image,
                websocket_smart_topic="/repghost/perception",
            )
        )
    return entities


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the rest depends on them."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera", default_value="mipi", choices=list(CAMERAS), description="Which camera."
            ),
            DeclareLaunchArgument(
                "image", default_value="", description="Image topic; empty: the camera's own."
            ),
            DeclareLaunchArgument("model", default_value="150", description="Name of a model."),
            DeclareLaunchArgument(
                "websocket",
                default_value="true",
                choices=["true", "false"],
                description="Show pictures and classes on http://BOARD:8000.",
            ),
            OpaqueFunction(function=parts),
        ]
    )
