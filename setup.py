"""ament_python package: what is installed, and the programs of `ros2 run repghost_ros ...`."""

from glob import glob
from runpy import run_path

from setuptools import find_packages, setup

PACKAGE = "repghost_ros"
VERSION = run_path(f"{PACKAGE}/version.py")["__version__"]
SHARED = ("launch", "config", "models", "labels")

setup(
    name=PACKAGE,
    version=VERSION,
    description="RepGhost image classification for ROS 2, on the RDK X5's BPU or with ONNX Runtime",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    python_requires=">=3.10",
    install_requires=["setuptools", "numpy", "opencv-python-headless", "tqdm"],
    # For `pip install .[pc]`; in a ROS workspace rosdep installs what package.xml names.
    extras_require={
        "pc": ["onnx", "onnxruntime", "matplotlib", "mcap", "PyYAML", "rosbags", "shtab"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # colcon puts the programs below in lib/, where `ros2 run` looks; this one is for PATH too.
        ("bin", ["resource/repghost"]),
        *((f"share/{PACKAGE}/{folder}", sorted(glob(f"{folder}/*"))) for folder in SHARED),
    ],
    entry_points={
        "console_scripts": [
            f"classifier_node = {PACKAGE}.ros.node:main",
            f"camera = {PACKAGE}.demo.camera:main",
            f"viewer = {PACKAGE}.demo.viewer:main",
            f"repghost = {PACKAGE}.cli:main",
        ]
    },
    package_data={PACKAGE: ["py.typed"]},
    zip_safe=False,
)
