# SPDX-License-Identifier: Apache-2.0
"""The rooms: what may import what, and the library as a stranger uses it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "repghost_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROS = ("rclpy", "rcl_interfaces", "launch", "launch_ros", "cv_bridge", "ament_index_python")
WALLED = ("ros", "demo")
"""Rooms that may import ROS."""
LAZY = {"cv_bridge": "vision/frame.py", "ament_index_python": "paths.py"}
"""What is imported where it is needed, if it is installed."""

LAZY_IMPORTS = ("need", "import_module")


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in LAZY_IMPORTS:
            names |= {str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_walled_rooms_import_ros(path: Path) -> None:
    place = path.relative_to(PACKAGE)
    if place.parts[0] in WALLED:
        return
    roots = {name.partition(".")[0] for name in imports(path)}
    ros = {name for name in roots if name in ROS or name.endswith(("_msgs", "_srvs"))}
    assert {name for name in ros if LAZY.get(name) != place.as_posix()} == set()
    # The command reaches the node's package by name, where a subcommand needs ROS.
    if place.parts[0] != "cli":
        assert not any(name.startswith("repghost_ros.ros") for name in imports(path))


def needing(path: Path) -> Iterator[tuple[str, str]]:
    """Names and docstrings of the public functions and classes whose own body calls `need`."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)

    def visit(parent: ast.AST, name: str, documented: ast.AST) -> Iterator[tuple[str, str]]:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
                yield name, ast.get_docstring(documented) or ""  # type: ignore[arg-type]
            if isinstance(node, (*functions, ast.ClassDef)):
                private = node.name.startswith("_")
                # A class documents its __init__; a private function is its callers' affair.
                inner = documented if private else node
                inside = f"{name}.{node.name}" if name else node.name
                if not private or node.name == "__init__":
                    yield from visit(node, inside, inner)
            else:
                yield from visit(node, name, documented)

    yield from visit(ast.parse(path.read_text()), "", ast.Module(body=[], type_ignores=[]))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_that_needs_a_package_documents_the_error(path: Path) -> None:
    if path.is_relative_to(PACKAGE / "cli"):  # commands report every error of the tree
        return
    silent = [name for name, text in needing(path) if "DependencyError" not in text]
    assert silent == []
    # The package is not somebody else's fault.
    packages = r"(?:onnx\b|ONNX Runtime|rosbags|torch|timm|PyYAML)[\w ,]* missing"
    assert re.findall(rf"(?:Conversion|Source)Error: [\w ,]*{packages}", path.read_text()) == []


WRITING = re.compile(
    r"(?:\.(?:write_text|write_bytes|tofile|rename|copyfile|savefig|savez\w*|imwrite"
    r"|VideoWriter|ParquetWriter)|(?:onnx|torch|np)\.save|onnx\.export)$"
)
"""Calls that write a file; `open`, `fdopen` and `Path.replace` are told by their arguments."""
GUARDS = {"whole_file", "replacing", "TemporaryDirectory"}
"""What writes completely or not at all, and what nobody's data is in."""
UNGUARDED = {
    "backends/_vendor_executor.py main": "standard output",
    "backends/sim.py CompiledSlot.__init__": "a temporary folder",
    "backends/sim.py simulate": "a temporary folder",
    "cli/saver.py _Video.__init__": "in whole_file until the video is closed",
    "files.py locked": "an empty file, to be locked",
    "output.py replacing": "what writes completely or not at all",
    "runs/answers.py _write_parquet": "in its caller's whole_file",
    "runs/evaluation.py predict": "line by line, so that a run can go on",
    "runs/fleet.py LocalFleet.share": "a temporary folder",
    "runs/many.py _only_run": "an empty file, to be locked",
    "runs/plots.py _figure": "a string",
    "sources/bag_writer.py ClassificationWriter.__exit__": "a folder, by its last rename",
    "sources/live.py _video.pump": "a pipe",
    "sources/remote.py local_copy": "a cache, by its last rename",
    "sources/ros2.py _unpacked": "a temporary folder",
    "sources/sqlite.py SqliteFile.__init__": "a temporary folder",
    "teach/collected.py append": "line by line, so that a run can go on",
    "teach/labeling.py Labeling.label": "a move",
    "teach/labeling.py Labeling.undo": "a move",
    "zoo/download.py _receive": "what has been received, so that a download can go on",
    "zoo/store.py ModelStore._from_archive": "what has been received, by its last rename",
}
"""Functions that write without a guard, and why that leaves nothing half-written.

test_interrupted_writes.py interrupts those that write what is kept.
"""


def writes(call: ast.Call) -> bool:
    """Return whether a call writes a file, or gives it its name."""
    name = ast.unparse(call.func)
    if isinstance(call.func, ast.Attribute) and call.func.attr == "replace":
        return len(call.args) == 1  # of Path, not of str
    if name.rpartition(".")[2] in ("open", "fdopen"):
        words = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        modes = [str(word.value) for word in words if isinstance(word, ast.Constant)]
        return any(re.fullmatch(r"[rwaxbt+]*[wax+][bt+]*", mode) for mode in modes)
    return WRITING.search(name) is not None


def unguarded(path: Path) -> Iterator[str]:
    """Yield the functions of a module that write outside a `with` of GUARDS."""

    def visit(node: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inside = (*inside, node.name)
        if isinstance(node, ast.With):
            opened = {ast.unparse(item.context_expr).partition("(")[0] for item in node.items}
            if {name.rpartition(".")[2] for name in opened} & GUARDS:
                return
        if isinstance(node, ast.Call) and writes(node):
            yield f"{path.relative_to(PACKAGE).as_posix()} {'.'.join(inside)}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text()), ())


def test_files_are_written_completely_or_not_at_all() -> None:
    assert {name for path in MODULES for name in unguarded(path)} == UNGUARDED.keys()


def layers() -> list[set[str]]:
    """Return packages and root modules in the order of docs/architecture.md, the lowest first."""
    text = (ROOT / "docs/architecture.md").read_text()
    rows = text.partition("## The packages")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*)\|", rows, flags=re.MULTILINE)
    return [
        {name.removesuffix("/").removesuffix(".py") for name in re.findall(r"`([^`]+)`", cell)}
        for cell in first_cells
    ]


def test_every_package_has_a_place_in_the_architecture() -> None:
    top = {p.relative_to(PACKAGE).with_suffix("").parts[0] for p in MODULES} - {"__init__"}
    assert set().union(*layers()) == top


def test_packages_import_only_what_is_below_them() -> None:
    """Lazy imports count; so does `from repghost_ros import Model`, which __init__ forwards."""
    floor = {name: number for number, names in enumerate(layers()) for name in names}
    upwards = []
    for path in MODULES:
        if path == PACKAGE / "__init__.py":
            continue
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "repghost_ros" or len(parts) < 2:
                continue
            imported = parts[1]
            if imported != own and floor.get(imported, len(floor)) >= floor[own]:
                upwards.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert upwards == []


def test_modules_import_each_other_in_no_circle() -> None:
    names = {
        ".".join(("repghost_ros", *p.relative_to(PACKAGE).with_suffix("").parts)): p
        for p in MODULES
    }
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {name: (imports(path) & names.keys()) - {name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for imported in graph[name]:
                visit(imported, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


SHARED_NAMES = {
    **dict.fromkeys(("add_arguments", "run", "main"), "of every command and program"),
    **dict.fromkeys(
        ("available", "library", "version"), "of every runtime, see backends/registry.py"
    ),
    **dict.fromkeys(("decode", "parse"), "of every picture format in vision/"),
}
"""Functions that several modules have, because others call them without knowing which."""


def test_a_public_name_means_one_thing() -> None:
    """C's structures are exempt: `native` names them as its header does, and nobody imports them."""
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        if path.is_relative_to(PACKAGE / "native"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    doubled = {name: files for name, files in homes.items() if len(files) > 1}
    assert {name: doubled[name] for name in doubled.keys() - SHARED_NAMES.keys()} == {}


def test_test_modules_share_through_helpers_alone() -> None:
    modules = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    for path in Path(__file__).parent.glob("*.py"):
        assert imports(path) & modules == set()


def test_the_library_needs_no_ros(tmp_path: Path) -> None:
    """The lines of the package's own docstring, where nothing of ROS can be imported."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
for name in {ROS!r}:
    sys.modules[name] = None
import cv2, numpy
import repghost_ros
from repghost_ros.sources.signs import render
cv2.imwrite("sign.png", render("stop", numpy.random.default_rng(0), 320, 240))
with repghost_ros.open_model("demo") as model:
    print(model.classify("sign.png"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].endswith("%  stop")
