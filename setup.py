# SPDX-License-Identifier: Apache-2.0
"""ament_python package: what is installed, and the programs of `ros2 run repghost_ros ...`."""

from pathlib import Path
from runpy import run_path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

PACKAGE = "repghost_ros"
VERSION = run_path(f"{PACKAGE}/version.py")["__version__"]
SHARED = ("launch", "config", "models", "labels")


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """List the files of a folder and the folders below it for the package's share directory."""
    files = [p for p in Path(folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    folders = sorted({path.parent for path in files})
    return [
        (f"share/{PACKAGE}/{each}", sorted(str(path) for path in files if path.parent == each))
        for each in folders
    ]


class BuildHelper(build_ext):
    """Builds the compiled helper, or leaves it out where there is no C compiler."""

    def copy_extensions_to_source(self) -> None:
        """Pass over what was not built, on which setuptools before 64 (Ubuntu 22.04) fails."""
        self.extensions = [
            each
            for each in self.extensions
            if Path(self.build_lib, self.get_ext_filename(each.name)).is_file()
        ]
        super().copy_extensions_to_source()


setup(
    name=PACKAGE,
    version=VERSION,
    description="RepGhost image classification for ROS 2, on the RDK X5's BPU or with ONNX Runtime",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    python_requires=">=3.10",
    install_requires=["setuptools", "numpy", "opencv-python-headless", "pillow", "tqdm"],
    extras_require={
        # For `pip install .[pc]`; in a ROS workspace rosdep installs what package.xml names.
        "pc": [
            *("onnx", "onnxruntime", "safetensors", "matplotlib", "mcap", "PyYAML", "rich"),
            *("rosbags", "shtab"),
        ],
        # For `repghost replay --on ray`, Parquet and bags that are URLs.
        "fleet": ["ray[client]", "pyarrow", "fsspec[http]"],
        # `colcon test` looks here for what runs the tests.
        "test": ["pytest", "pytest-timeout", "hypothesis"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # Where `ros2 run` looks, and not on PATH: these names are everybody's.
        (f"lib/{PACKAGE}", sorted(map(str, Path("resource/programs").iterdir()))),
        *(files for folder in SHARED for files in shared(folder)),
    ],
    entry_points={"console_scripts": [f"repghost = {PACKAGE}.cli:command"]},
    cmdclass={"build_ext": BuildHelper},
    package_data={PACKAGE: ["py.typed"]},
    ext_modules=[
        # No Python module, but a library that repghost_ros/native loads where it was built.
        Extension(
            f"{PACKAGE}.native.compiled",
            sorted(map(str, Path(PACKAGE, "native").glob("*.c"))),
            depends=["setup.py", *sorted(map(str, Path(PACKAGE, "native").glob("*.h")))],
            # Scores do not depend on the processor: no fused multiplication and addition.
            extra_compile_args=["-std=gnu11", "-O3", "-Wall", "-Wextra", "-ffp-contract=off"],
            libraries=["m"],
            optional=True,
        )
    ],
    zip_safe=False,
)
