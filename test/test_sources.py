# SPDX-License-Identifier: Apache-2.0
"""Folders, films, cameras and streams as people have them, through `repghost classify`."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.bags import sign_bag
from helpers.waiting import WAIT
from PIL import Image

from repghost_ros.cli import main
from repghost_ros.errors import FrameError, SourceError
from repghost_ros.sources.folders import IMAGES, VIDEOS, files_in
from repghost_ros.sources.live import is_live
from repghost_ros.sources.pictures import find, pictures, read_image
from repghost_ros.sources.signs import render
from repghost_ros.sources.videos import read_video
from repghost_ros.vision.frame import MAX_PIXELS

CLASSIFY = ("classify", "--model", "demo", "--top-k", "1")
_ORIENTATION = 0x0112  # of EXIF and TIFF
FRAMES = 40
STAY = ("stop", "yield", "roundabout")


def sign(label: str, width: int = 320, height: int = 240) -> np.ndarray:
    return render(label, np.random.default_rng(3), width, height)


def write_film(path: Path, codec: str = "MJPG", frames: int = FRAMES) -> Path:
    """Write a film whose frame N is as bright as N times 5."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 20, (320, 240))
    assert writer.isOpened()
    noise = np.random.default_rng(0)
    for number in range(frames):
        flat = np.full((240, 320, 3), number * 5 + 20, np.int16)
        writer.write((flat + noise.integers(-15, 16, flat.shape)).astype(np.uint8))
    writer.release()
    return path


def numbers(path: Path) -> tuple[list[int], str]:
    """Read such a film; return the numbers of its frames, and the damage reported at the end."""
    read, said = [], ""
    try:
        for pixels in read_video(path):
            read.append(round((float(pixels.mean()) - 20) / 5))
    except FrameError as error:
        said = str(error)
    return read, said


def run(*arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repghost_ros.cli", *CLASSIFY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT, **options)


FILMS = [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v"), ("a.webm", "VP80")]


@pytest.mark.parametrize(("name", "codec"), FILMS)
def test_a_whole_film_is_read_whole(name: str, codec: str, tmp_path: Path) -> None:
    assert numbers(write_film(tmp_path / name, codec)) == (list(range(FRAMES)), "")


@pytest.mark.parametrize(("name", "codec"), [film for film in FILMS if film[0] != "a.mp4"])
def test_a_cut_film_is_read_to_the_cut_and_said_to_be_short(
    name: str, codec: str, tmp_path: Path
) -> None:
    path = write_film(tmp_path / name, codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    read, said = numbers(path)
    assert FRAMES // 3 < len(read) < FRAMES * 2 // 3
    assert f"{len(read)} of" in said
    assert "breaks off" in said


@pytest.mark.parametrize(("name", "codec"), FILMS[:3])
def test_frames_behind_a_hole_are_read(name: str, codec: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / name, codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 10] = bytes(len(data) // 10)
    path.write_bytes(data)
    read, said = numbers(path)
    assert len(read) < FRAMES
    assert f"{len(read)} of" in said
    assert read[0] == 0
    if name == "a.avi":  # each of its frames stands by itself
        assert read[-1] == FRAMES - 1


def test_a_film_without_its_index_is_no_film(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", "mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert numbers(path) == ([], f"'{path}' is not a video that OpenCV can read")


def test_a_short_film_fails_and_is_told_in_json(tmp_path: Path, capsys: Any) -> None:
    path = write_film(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main([*CLASSIFY, str(path), "--json"]) == 1
    told = capsys.readouterr()
    *answered, last = json.loads(told.out)["results"]
    assert [each["frame"] for each in answered] == list(range(len(answered)))
    assert f"{len(answered)} of {FRAMES} frames" in last["error"]
    assert told.err.count("a.avi") == 1  # the name is not said twice


def test_films_are_turned_as_they_were_held(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (320, 240))
    shown = np.zeros((240, 320, 3), np.uint8)
    shown[:120] = 200  # bright above
    for _ in range(3):
        writer.write(shown)
    writer.release()
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", data, matrix)[0] == 1 << 16
    quarter_turn = (0, 1 << 16, 0, -(1 << 16), 0, 0, 240 << 16, 0, 1 << 30)
    struct.pack_into(">9i", data, matrix, *quarter_turn)
    path.write_bytes(data)
    (first, *_) = read_video(path)
    assert first.shape == (320, 240, 3)
    assert first[:, 200:].mean() > 150  # clockwise: bright on the right
    assert first[:, :40].mean() < 50


@pytest.mark.parametrize(
    "name", ["2024-05-01T10:30:00", "cam:0", "http:x", "-film", "a\nb", "100%", "%03d", "caf\udce9"]
)
def test_films_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_film(tmp_path / "plain.mp4", "mp4v", 5).rename(tmp_path / f"{name}.mp4")
    monkeypatch.chdir(tmp_path)
    done = run("--save", "out:1", "--", f"{name}.mp4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ms)") == 5
    assert numbers(tmp_path / "out:1" / f"{name}.mp4")[1] == ""


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", b"-a.png", b"a\nb.png", b"a:b.png", b"\xff\xfe.jpg"]
)
def test_pictures_of_any_name(name: bytes, tmp_path: Path) -> None:
    folder, out = os.fsencode(tmp_path / "in"), tmp_path / "out"
    os.mkdir(folder)
    suffix = name[-4:].decode()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(cv2.imencode(suffix, sign("stop"))[1].tobytes())
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = run(folder, "--json", "--save", str(out), env=strict)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["results"]
    assert os.path.basename(os.fsencode(answer["path"])) == name
    assert answer["results"][0]["class_id"] == "stop"
    assert os.listdir(os.fsencode(out)) == [name]
    assert run(folder, env=strict).returncode == 0


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.mark.parametrize("name", ["a.png", "a.avi"])
def test_nothing_is_kept_that_could_not_be_written_whole(name: str, tmp_path: Path) -> None:
    """A limit of a file's size stands for a full disk."""
    if name.endswith("png"):
        cv2.imwrite(str(tmp_path / name), sign("stop"))
    else:
        write_film(tmp_path / name)
    done = run(str(tmp_path / name), "--save", str(tmp_path / "out"), preexec_fn=limit_files)
    assert done.returncode == 1
    assert "written" in done.stderr
    assert str(tmp_path / "out") in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_format_cannot_hold_is_not_saved(tmp_path: Path) -> None:
    """A JPEG has at most 65500 columns."""
    cv2.imwrite(str(tmp_path / "wide.bmp"), np.zeros((8, 70000, 3), np.uint8))
    done = run(str(tmp_path / "wide.bmp"), "--save", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "cannot encode 70000x8 pixels as .jpg" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_that_cannot_be_written_whole_is_an_error(storage: str, tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", 60)
    command = (sys.executable, "-m", "repghost_ros.cli", "replay", str(bag), "--model", "demo")
    out = ("--out", str(tmp_path / "answers"), "--storage", storage)
    done = subprocess.run(
        [*command, *out], capture_output=True, text=True, preexec_fn=limit_files, check=False
    )
    assert done.returncode == 1
    assert f"'{tmp_path / 'answers'}' cannot be written" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_streams_may_be_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    """What libraries print must not end in a file that got the number of a closed stream."""
    cv2.imwrite(str(tmp_path / "a.png"), sign("stop"))

    def close() -> None:
        for number in closed:
            os.close(number)

    saved = tmp_path / "out"
    done = run(str(tmp_path / "a.png"), "--save", str(saved), preexec_fn=close)
    assert done.returncode == 0, done.stderr
    assert read_image(saved / "a.png").width == 320
    assert ("stop" in done.stdout) == (1 not in closed)
    assert ("demo.onnx" in done.stderr) == (2 not in closed)


def test_a_closed_standard_input_is_empty() -> None:
    done = run("-", preexec_fn=lambda: os.close(0))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "repghost: '-': standard input is empty"


def test_what_was_written_is_not_classified_again(tmp_path: Path, capsys: Any) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), sign("stop"))
    for _ in range(2):
        assert main([*CLASSIFY, str(tmp_path), "--json", "--save", str(tmp_path / "out")]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["results"]
        assert answer["path"] == str(tmp_path / "a.png")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    for name in (
        *("a.png", "stop/b.JPG", ".ipynb_checkpoints/a.png", "stop/.ipynb_checkpoints/b.png"),
        *("__MACOSX/a.png", "__MACOSX/stop/._b.jpg", "._a.png", ".DS_Store", "Thumbs.db"),
        *(".hidden.png", ".git/c.png"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find([tmp_path]) == [tmp_path / "a.png", tmp_path / "stop" / "b.JPG"]
    # One that is named is meant.
    assert find([tmp_path / ".git"]) == [tmp_path / ".git" / "c.png"]


def test_endings_that_opencv_reads_are_taken_and_others_counted(
    tmp_path: Path, caplog: Any
) -> None:
    jpeg = cv2.imencode(".jpg", sign("stop"))[1].tobytes()
    for name in ("a.jpg", "b.jfif", "c.jpe", "d.JPEG"):
        (tmp_path / name).write_bytes(jpeg)
    for suffix in (".jp2", ".tif", ".tiff", ".bmp", ".webp", ".ppm"):
        assert suffix in IMAGES
        cv2.imwrite(str(tmp_path / f"e{suffix}"), sign("stop"))
    write_film(tmp_path / "f.ts", "mp4v", 2)
    write_film(tmp_path / "g.m4v", "mp4v", 2)
    for name in ("x.heic", "y.heic", "z.txt", "README"):
        (tmp_path / name).write_bytes(b"something")
    found = files_in(tmp_path, (*IMAGES, *VIDEOS))
    assert len(found) == 12
    assert "passed over 2 .heic, 1 " in caplog.text
    done = run(str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ms)") == 14
    assert "2 .heic" in done.stderr


@pytest.mark.parametrize("suffix", [".avif", ".jxl", ".heic"])
def test_pictures_that_this_opencv_cannot_read_are_passed_over(
    suffix: str, tmp_path: Path, caplog: Any
) -> None:
    if suffix in IMAGES:
        pytest.skip("this OpenCV reads it")
    (tmp_path / f"a{suffix}").write_bytes(b"something")
    (tmp_path / "b.png").touch()
    assert find([tmp_path]) == [tmp_path / "b.png"]
    assert f"passed over 1 {suffix}" in caplog.text


def test_every_nth_frame(tmp_path: Path, capsys: Any) -> None:
    path = write_film(tmp_path / "a.avi")
    assert main([*CLASSIFY, str(path), "--json", "--every", "15"]) == 0
    answers = json.loads(capsys.readouterr().out)["results"]
    assert [answer["frame"] for answer in answers] == [0, 15, 30]


def jpegs() -> bytes:
    return b"".join(cv2.imencode(".jpg", sign(label))[1].tobytes() for label in STAY)


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_pictures_on_standard_input(source: str) -> None:
    done = run_bytes(source, jpegs())
    assert [answer["results"][0]["class_id"] for answer in done] == list(STAY)
    png = cv2.imencode(".png", sign("stop"))[1].tobytes()
    (answer,) = run_bytes(source, png)
    assert (answer["path"], answer["results"][0]["class_id"]) == ("-", "stop")


def run_bytes(source: str, given: bytes) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "repghost_ros.cli", *CLASSIFY, source, "--json"]
    done = subprocess.run(command, input=given, capture_output=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


@pytest.mark.parametrize(("name", "codec"), FILMS)
def test_a_film_on_standard_input(name: str, codec: str, tmp_path: Path) -> None:
    given = write_film(tmp_path / name, codec).read_bytes()
    assert [answer["frame"] for answer in run_bytes("-", given)] == list(range(FRAMES))


def test_a_stream_runs_until_it_is_interrupted_and_then_all_is_well() -> None:
    command = [sys.executable, "-m", "repghost_ros.cli", *CLASSIFY, "-", "--max-rate", "10"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stopped = threading.Event()

        def feed() -> None:
            try:
                while not stopped.is_set():
                    process.stdin.write(jpegs())  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]
                    time.sleep(0.02)
            except (BrokenPipeError, ValueError):
                pass

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        lines = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        rest, told = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
        assert process.wait(WAIT) == 0, told
        stopped.set()
        feeder.join(WAIT)
    assert lines[0].startswith(b"-#0 ")
    assert b"Traceback" not in told + rest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls(server: str, tmp_path: Path, capsys: Any) -> None:
    cv2.imwrite(str(tmp_path / "stop.jpg"), sign("stop"))
    write_film(tmp_path / "a.mkv", "mp4v")
    for name, frames in (("stop.jpg", 1), ("a.mkv", FRAMES)):
        assert main([*CLASSIFY, f"{server}/{name}", "--json"]) == 0
        answers = json.loads(capsys.readouterr().out)["results"]
        assert len(answers) == frames
        assert answers[0]["path"] == f"{server}/{name}"
    assert main([*CLASSIFY, f"{server}/absent.jpg"]) == 1
    assert f"'{server}/absent.jpg' cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("97", 1, "'97' cannot be opened: there is"),
        ("/dev/video97", 1, "'/dev/video97' cannot be opened: there is"),
        ("s3://bucket/a.jpg", 1, "s3 is not supported, but rtsp"),
        ("rtsp://me:secret@127.0.0.1:9/a", 1, "'rtsp://127.0.0.1:9/a' cannot be opened"),
    ],
)
def test_sources_that_cannot_be_opened(source: str, code: int, said: str) -> None:
    done = run(source)
    assert done.returncode == code
    # FFmpeg and ONNX Runtime have lines of their own.
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("repghost: ")]
    assert said in line
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_animation_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "cut.webp"
    shades = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (50, 100)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=100)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(FrameError, match="animated WebP, damaged"):
        read_image(path)


def test_options_of_the_wrong_source(tmp_path: Path, capsys: Any) -> None:
    write_film(tmp_path / "a.avi", frames=2)
    assert main([*CLASSIFY, "0", str(tmp_path)]) == 2
    assert "give no other source" in capsys.readouterr().err
    assert main([*CLASSIFY, str(tmp_path), "--max-rate", "3"]) == 2
    assert "--every" in capsys.readouterr().err


def test_what_is_live() -> None:
    assert [is_live(each) for each in ("0", "/dev/video0", "-", "rtsp://x/y", "./0", "a.mp4")] == [
        *(True, True, True, True, False, False)
    ]
    with pytest.raises(SourceError, match="ftp is not supported"):
        is_live("ftp://x/a.jpg")


def test_a_damaged_jpeg_2000_crashes_nothing(tmp_path: Path) -> None:
    """OpenCV 4.11 itself crashes on most of these."""
    path = tmp_path / "a.jp2"
    whole = cv2.imencode(".jp2", sign("stop"))[1].tobytes()
    for size in (155, 160, 200):
        path.write_bytes(whole[:size])
        with pytest.raises(FrameError, match="JPEG 2000.*truncated or damaged"):
            read_image(path)


def test_odd_paths(tmp_path: Path, capsys: Any) -> None:
    """Line breaks, 255 bytes a name, deep folders, and links that lead nowhere."""
    deep = tmp_path.joinpath(*["d" * 200] * 4)
    deep.mkdir(parents=True)
    names = ["a\nb.png", "x" * 251 + ".png", str(deep / "c.png")]
    for name in names:
        (tmp_path / name).write_bytes(cv2.imencode(".png", sign("stop"))[1].tobytes())
    (tmp_path / "broken.png").symlink_to(tmp_path / "absent")
    assert main([*CLASSIFY, str(tmp_path), "--json"]) == 1
    answers = json.loads(capsys.readouterr().out)["results"]
    read = {answer["path"] for answer in answers if answer.get("results")}
    assert read == {str(tmp_path / name) for name in names}
    (error,) = [answer["error"] for answer in answers if answer.get("error")]
    assert "No such file" in error


@pytest.mark.parametrize("kind", ["PF", "Pf"])
def test_a_pfm_image_is_refused(tmp_path: Path, kind: str) -> None:
    values = np.full((4, 4, 3 if kind == "PF" else 1), 0.5, "<f4")  # OpenCV would read black
    path = tmp_path / "float.pfm"
    path.write_bytes(f"{kind}\n4 4\n-1.0\n".encode() + values.tobytes())
    with pytest.raises(FrameError, match=r"float\.pfm.*floating-point.*convert"):
        read_image(path)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floating_point_values_are_refused(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    if not cv2.imwrite(str(path), sign("stop").astype(kind) / 255):
        pytest.skip("this OpenCV does not write them")
    with pytest.raises(FrameError, match="float.*convert it to 8 bits"):
        read_image(path)


@pytest.mark.parametrize("largest", [1, 15, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_samples_of_a_pnm_are_scaled_from_its_largest_value(
    kind: str, largest: int, tmp_path: Path
) -> None:
    """Cameras of 10 and 12 bits write 1023 and 4095, which would be nearly black."""
    fractions = np.tile(np.linspace(0, 1, 32), (8, 1))
    values = np.rint(fractions * largest).astype(int)
    channels = 3 if kind in ("P3", "P6") else 1
    samples = np.repeat(values[..., None], channels, axis=-1)
    path = tmp_path / "deep.pnm"
    if kind in ("P2", "P3"):
        data = (" ".join(map(str, samples.reshape(-1))) + "\n").encode()
    else:
        data = samples.astype("u1" if largest < 256 else ">u2").tobytes()
    path.write_bytes(f"{kind}\n# camera\n32 8\n{largest}\n".encode() + data)
    wanted = np.rint(values * (255 / largest))
    assert np.abs(read_image(path).planes[0][..., 0] - wanted).max() <= 1


def test_color_pngs_of_16_bits_are_read_but_no_depth_images(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), sign("stop").astype(np.uint16) * 257)
    assert np.array_equal(read_image(path).planes[0], sign("stop"))
    cv2.imwrite(str(path), sign("stop")[..., 0].astype(np.uint16) * 257)
    with pytest.raises(FrameError, match=r"deep\.png.*16 bits.*depth"):
        read_image(path)


def test_photographs_may_be_larger_than_messages(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((MAX_PIXELS // 8000 + 1, 8000), np.uint8))
    assert read_image(path).width == 8000


@pytest.mark.parametrize(
    ("name", "head", "said"),
    [
        ("x.heic", b"\0\0\0\x18ftypheic", "HEIC.*convert it to JPEG or PNG"),
        ("x.avif", b"\0\0\0\x1cftypavif", "AVIF.*convert it"),
        ("turned.avif", b"\0\0\0\x1cftypavif\0\0\0\x09irot\1", "AVIF to be turned"),
        ("x.jxl", b"\xff\x0a\xfa\x1f", "JPEG XL.*convert it"),
        ("x.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 of 12 bytes.*truncated"),
        ("x.cr2", b"II*\0\x10\0\0\0CR\2\0", "camera raw.*convert it"),
        ("page.jpg", b"<!DOCTYPE html>", "HTML"),
        ("clip.jpg", b"\0\0\0\x18ftypmp42", "a video.*MP4"),
        ("cut.bmp", b"BM" + bytes(20), "BMP of 22 bytes.*truncated"),
        ("zero.jpg", b"", "it is empty"),
        ("text.png", "café".encode("utf-16"), "not an image that OpenCV can read"),
    ],
)
def test_files_that_cannot_be_read_say_what_they_are(
    name: str, head: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(FrameError, match=f"{name}.*{said}"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("tif", "pages"), ("webp", "frames"), ("png", "frames")]
)
def test_of_several_pages_or_frames_the_first_is_read_and_said(
    suffix: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"several.{suffix}"
    shades = [Image.new("RGB", (16, 16), (shade, shade, shade)) for shade in (50, 100, 200)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=100)
    if cv2.imread(str(path)) is None:  # OpenCV 4.5.4 of Ubuntu 22.04 reads no animations
        with pytest.raises(FrameError, match="animated WebP, .* too new for OpenCV"):
            read_image(path)
        return
    frame = read_image(path)
    assert frame.note == f"the first of 3 {kind}"
    assert abs(int(frame.planes[0].mean()) - 50) < 3


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("1", "tif"), ("P", "tif")],
)
def test_palettes_single_bits_and_alpha(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    Image.fromarray(pixels).convert(mode).save(path)
    shown = read_image(path).planes[0]
    assert np.array_equal(shown, pixels if shown.ndim == 3 else pixels[..., 0])


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    film, still = tmp_path / "film.jpg", tmp_path / "still.mp4"
    write_film(tmp_path / "film.avi").rename(film)
    still.write_bytes(cv2.imencode(".png", sign("stop"))[1].tobytes())
    read = list(pictures([film, still]))
    assert [each.index for each in read] == [*range(FRAMES), None]
    assert np.array_equal(read[-1].frame().planes[0], sign("stop"))


def test_an_animated_gif_is_a_film(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    shades = [Image.new("L", (16, 16), shade) for shade in (50, 100, 200)]
    shades[0].save(path, save_all=True, append_images=shades[1:])
    means = [each.frame().planes[0].mean() for each in pictures([path])]
    assert np.allclose(means, [50, 100, 200], atol=3)


def test_of_16_bits_the_upper_8_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    cv2.imwrite(str(path), sign("stop").astype(np.uint16) * 257)
    assert np.array_equal(read_image(path).planes[0], sign("stop"))


_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}
"""Makes the stored pixels upright, by EXIF orientation."""


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", _UPRIGHT)
def test_the_orientation_of_every_format_is_followed(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / f"photo.{suffix}"
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 200  # tells all eight apart
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    if suffix == "webp":
        Image.fromarray(pixels).save(path, lossless=True, exif=exif)
    elif suffix == "tif":
        Image.fromarray(pixels).save(path, tiffinfo={_ORIENTATION: orientation})
    else:
        Image.fromarray(pixels).save(path, exif=exif)
    wanted = _UPRIGHT[orientation](pixels[..., 0])
    shown = read_image(path).planes[0]  # of a JPEG the luma
    shown = shown.max(axis=-1) if shown.ndim == 3 else shown
    assert shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).mean() < 3


def test_a_picture_that_is_a_git_lfs_pointer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(FrameError, match="Git LFS pointer.*git lfs pull"):
        read_image(path)


@pytest.mark.parametrize("between", [b"", b"\r\n", bytes(3000), b"\0\n"])
def test_jpegs_with_padding_between_them(between: bytes) -> None:
    parts = [cv2.imencode(".jpg", sign(label))[1].tobytes() for label in STAY]
    done = run_bytes("-", between.join(parts) + between)
    assert [answer["results"][0]["class_id"] for answer in done] == list(STAY)


def multi_picture(first: bytes, *others: bytes) -> bytes:
    """JPEGs as one file of CIPA's Multi-Picture Format, such as a photo and its gain map."""
    index = struct.pack("<HHHII", 1, 0xB001, 4, 1, 1 + len(others)) + bytes(4)
    body = b"MPF\0II*\0" + struct.pack("<I", 8) + index
    segment = b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
    return first[:2] + segment + first[2:] + b"".join(others)


def test_parts_of_a_photo_are_no_pictures_of_their_own() -> None:
    stop, *rest = (cv2.imencode(".jpg", sign(label))[1].tobytes() for label in STAY)
    done = run_bytes("-", multi_picture(stop, rest[0], rest[0]) + stop)
    assert [answer["results"][0]["class_id"] for answer in done] == [STAY[0], STAY[0]]
