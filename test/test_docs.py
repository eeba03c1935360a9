# SPDX-License-Identifier: Apache-2.0
"""The documentation: its links, commands and examples, and that both READMEs say the same."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import helpers.bags as bags
import pytest

from repghost_ros.cli import main
from repghost_ros.cli.program import COMMANDS, make_parser

ROOT = Path(__file__).parent.parent
README, CHINESE = ROOT / "README.md", ROOT / "README_cn.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, CHINESE, ROOT / "CONTRIBUTING.md", *DOCS]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
SCRIPT = ROOT / "tools" / "site" / "assets" / "mermaid.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NOT_RUN = re.compile(r"^<!-- not run: .+ -->\n```python\n.*?^```$", re.M | re.S)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str | None = None) -> list[str]:
    """Return the code blocks of one language, or of all."""
    return [body for _, kind, body in FENCE.findall(text) if language in (None, kind)]


@cache
def anchors(path: Path) -> frozenset[str]:
    """Names of a page's headings, as Markdown's renderers make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.M)
    kept = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return frozenset(re.sub(r"\s", "-", heading) for heading in kept)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def commands(text: str) -> Iterator[list[str]]:
    """Command lines of `repghost` in fences and within sentences, without the program's name."""
    inline = re.findall(r"`(repghost [^`]+)`", FENCE.sub("", text))
    fenced = [
        line.strip().removeprefix("$ ") for body in blocks(text) for line in body.splitlines()
    ]
    for line in [*inline, *fenced]:
        if line.startswith("repghost "):
            words = shlex.split(line, comments=True)
            end = next((i for i, word in enumerate(words) if word in ("|", ">", ";", "&&")), None)
            yield words[1:end]


@cache
def options() -> dict[str, set[str]]:
    """Return the options of all commands."""
    (subparsers,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return {command: set(p._option_string_actions) for command, p in subparsers.choices.items()}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    for command, *words in commands(page.read_text(encoding="utf-8")):
        if command.isupper():  # stands for any
            continue
        assert command in COMMANDS
        before_ros = words[: words.index("--ros-args")] if "--ros-args" in words else words
        given = {word for word in before_ros if word.startswith("--")}
        assert given - options()[command] == set(), command


@pytest.mark.parametrize("page", ["formats", "conformance"])
def test_tests_that_a_page_refers_to_exist(page: str) -> None:
    """A test without a file is of the file that was named last."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    referred = re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", text)
    assert len([test for _, test in referred if test]) > 20
    content = ""
    for file, test in referred:
        if file:
            content = (ROOT / "test" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in content, test


def test_every_line_of_formats_has_a_test() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert not [line for line in lines if "::" not in line and line[:5] not in ("| giv", "| ---")]


def test_every_command_has_its_section() -> None:
    assert set(COMMANDS) <= anchors(ROOT / "docs" / "cli.md")


def test_every_topic_of_the_node_is_documented() -> None:
    """The policy has the node's topics, which a test compares with its graph."""
    policy = ElementTree.parse(ROOT / "config" / "sros2_policy.xml")
    topics = {topic.text for topic in policy.iter("topic")}
    page = (ROOT / "docs" / "node.md").read_text(encoding="utf-8")
    of_every_node = {"/rosout", "/parameter_events", "~/transition_event"}
    assert {topic for topic in topics - of_every_node if f"`{topic}`" not in page} == set()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the files that the examples read."""
    folder = tmp_path_factory.mktemp("desk")
    bags.sign_bag(folder / "drive", frames=6)
    assert main(["signs", str(folder / "signs")]) == 0
    for answers in ("answers", "golden"):
        out = str(folder / f"{answers}.jsonl")
        assert main(["replay", str(folder / "drive"), "--model", "demo", "--out", out]) == 0
    return folder


# Those of fleet.md are run by test_fleet.py, on the results that they ask for.
EXAMPLES = [
    (page, block)
    for page in [README, *DOCS]
    if page.name != "fleet.md"
    for block in blocks(NOT_RUN.sub("", page.read_text(encoding="utf-8")), "python")
]


@pytest.mark.parametrize(
    ("page", "code"), EXAMPLES, ids=[f"{name(page)}-{i}" for i, (page, _) in enumerate(EXAMPLES)]
)
def test_python_runs(page: Path, code: str, desk: Path) -> None:
    printed(code, desk)


def printed(code: str, folder: Path) -> list[str]:
    """Run an example in a folder and return the lines that it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def library_example(word: str) -> str:
    """Return the example of docs/python.md in which a word stands."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return next(block for block in blocks(page, "python") if word in block)


def test_the_librarys_first_example_prints_what_stands_below_it(desk: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    shown = blocks(page)[1].splitlines()
    lines = printed(library_example("print(model.classify("), desk)
    assert lines[: len(shown)] == shown
    assert len(lines) == len(shown) + 3


def test_the_librarys_bags_may_hold_compressed_images(tmp_path: Path) -> None:
    store = bags.ROS2
    messages = [bags.compressed(store, i, pixels) for i, (_, pixels) in enumerate(bags.film(6))]
    bags.write_ros2(tmp_path / "drive", {"/camera/image_raw/compressed": messages})
    lines = printed(library_example("replay("), tmp_path)
    assert [line.split(" ", 1)[1] for line in lines] == [shown for shown, _ in bags.film(6)]


def test_the_repositorys_address_is_in_package_xml_alone() -> None:
    (address,) = re.findall(r"<url[^>]*>([^<]+)", (ROOT / "package.xml").read_text())
    assert [page for page in PAGES if address in page.read_text(encoding="utf-8")] == []


def test_the_chinese_readme_has_the_same_commands_and_figures() -> None:
    english, chinese = (path.read_text(encoding="utf-8") for path in (README, CHINESE))
    assert blocks(english) == blocks(chinese)
    figures, those = (
        sorted(re.findall(r"\d+(?:[.,]\d+)*", FENCE.sub("", text))) for text in (english, chinese)
    )
    assert figures == those
    links, their_links = (
        set(re.findall(r"\]\((docs/[^)]+)\)", text)) for text in (english, chinese)
    )
    assert links == their_links


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site into a folder."""
    pytest.importorskip("mkdocs", reason="`make docs` installs it")
    if not SCRIPT.is_file():
        pytest.skip("`make docs` downloads the script of the diagrams")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True)
    return folder


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?([^\"'\s>]+)"
    )
    pages = list(site.rglob("*.html"))
    addresses = [each for page in pages for each in loaded.findall(page.read_text("utf-8"))]
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    addresses += [each for style in styles for each in re.findall(r"url\([\"']?([^\"')]+)", style)]
    assert len(pages) > len(DOCS)
    assert [each for each in addresses if re.match("(https?:)?//", each)] == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_site_draws_its_diagrams_offline(site: Path) -> None:
    """The theme puts a drawn diagram in place of its source, which is in a `pre`."""
    assert CHROMIUM is not None
    assert '<pre class="mermaid">' in (site / "architecture" / "index.html").read_text("utf-8")
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
        address = f"http://127.0.0.1:{server.server_port}/architecture/"
        shown = [CHROMIUM, *quiet, offline, "--dump-dom", address]
        dom = subprocess.run(shown, capture_output=True, text=True, check=True, timeout=100).stdout
        server.shutdown()
    assert '<div class="mermaid">' in dom
    assert '<pre class="mermaid">' not in dom
