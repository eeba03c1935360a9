# SPDX-License-Identifier: Apache-2.0
"""The RDK's camera -> classes -> the RDK's web page: `ros2 launch repghost_ros rdk_camera.launch.py`.

Needs the RDK's own ROS: `source /opt/tros/humble/setup.bash`. Each part is optional: camera:=none,
websocket:=false.

Further arguments, such as top_k:=3, are passed on to all parts. None is refused: which ones the
vendor's parts take is not known here.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

# What each camera publishes by its own launch file's defaults.
CAMERAS = {
    "mipi": {"image": "/hbmem_img", "image_transport": "hbmem"},
    "usb": {"image": "/image", "image_transport": "auto"},
    "none": {"image": "image", "image_transport": ""},
}
LAUNCH_FILES = {
    "mipi": ("mipi_cam", "mipi_cam.launch.py"),
    "usb": ("hobot_usb_cam", "hobot_usb_cam.launch.py"),
}


def include(package: str, file: str, **arguments: str) -> IncludeLaunchDescription:
    """Another package's launch file."""
    path = PathJoinSubstitution([FindPackageShare(package), "launch", file])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
    )


def parts(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The requested parts: camera, node and web page."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    camera, websocket = argument("camera"), argument("websocket") == "true"
    from_camera = CAMERAS[camera]
    image = argument("image") or from_camera["image"]
    entities: list[LaunchDescriptionEntity] = []
    if camera != "none":
        entities.append(include(*LAUNCH_FILES[camera]))
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
    if websocket:
        shown = image
        if camera == "mipi":  # the page shows JPEG only
            entities.append(include("hobot_codec", "hobot_codec_encode.launch.py"))
            shown = "/image_jpeg"
        entities.append(
            include(
                "websocket",
                "websocket.launch.py",
                websocket_image_topic=shown,
                websocket_smart_topic="/repghost/perception",
            )
        )
    return entities


def generate_launch_description() -> LaunchDescription:
    """Camera, node and web page."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera", default_value="mipi", choices=list(CAMERAS), description="Which camera."
            ),
            DeclareLaunchArgument(
                "image", default_value="", description="Image topic; empty: the camera's own."
            ),
            DeclareLaunchArgument("model", default_value="150", description="RepGhost size."),
            DeclareLaunchArgument(
                "websocket",
                default_value="true",
                choices=["true", "false"],
                description="Show pictures and classes on http://BOARD:8000.",
            ),
            OpaqueFunction(function=parts),
        ]
    )
