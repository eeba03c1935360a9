# SPDX-License-Identifier: Apache-2.0
"""Bags as recorders, converters and accidents leave them: every message that is there is read, once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from helpers.bags import IMAGE, ROS1, ROS2, film, image, sign_bag, stamp_ns, write_ros1, write_ros2
from mcap.writer import CompressionType, Writer

from repghost_ros.engine.results import Result
from repghost_ros.errors import SourceError
from repghost_ros.runs.many import find_bags, is_bag
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.storage import ros2_type
from repghost_ros.sources.types import hypotheses, ros2_topics

FRAMES = 12
TOPIC = "/camera/image_raw"
PICTURES = [picture for _, picture in film(FRAMES)]
ALL = [stamp_ns(index) for index in range(FRAMES)]


def read(path: Path, topic: str = TOPIC) -> tuple[list[int], str]:
    """Return the stamps of the readable messages, and the damage reported at the end."""
    stamps, said = [], ""
    with Bag(path) as bag:
        try:
            for recorded in bag.messages(topic):
                assert recorded.message is not None, recorded.error
                index = ALL.index(recorded.stamp_ns)
                assert bytes(recorded.message.data) == PICTURES[index].tobytes()
                stamps.append(recorded.stamp_ns)
        except SourceError as error:
            said = str(error)
    return stamps, said


def write_mcap(
    path: Path,
    *,
    frames_per_chunk: int = 4,
    channels: int = 1,
    compression: CompressionType = CompressionType.ZSTD,
    is_indexed: Callable[[int], bool] = lambda chunk: True,
    profile: str = "ros2",
    kind: str = IMAGE,
    foreign: tuple[str, str, bytes] | None = None,
    order: Callable[[int], int] = lambda index: index,
    **options: Any,
) -> Path:
    """FRAMES images by the mcap package, whose writer leaves out what it is told to leave out."""
    chunks = 0

    class Partial(Writer):
        """Whose private method is replaced below: there is no option for it."""

    finalize = Writer._Writer__finalize_chunk  # type: ignore[attr-defined]

    def finalize_chunk(self: Any) -> None:
        nonlocal chunks
        if not is_indexed(chunks):
            self._Writer__chunk_builder.message_indices.clear()
        chunks += 1
        finalize(self)

    Partial._Writer__finalize_chunk = finalize_chunk  # type: ignore[attr-defined]
    size = frames_per_chunk * PICTURES[0].nbytes
    definition = ROS2.generate_msgdef(IMAGE, ros_version=2)[0].encode()
    with path.open("wb") as file:
        writer = Partial(file, chunk_size=size, compression=compression, **options)
        writer.start(profile=profile)
        schema = writer.register_schema(kind, "ros2msg", definition)
        ids = [
            writer.register_channel(TOPIC, "cdr", schema, {"publisher": str(each)})
            for each in range(channels)
        ]
        if foreign:
            name, encoding, data = foreign
            other = writer.register_channel(
                "/other", encoding, writer.register_schema(name, encoding, data) if name else 0
            )
            writer.add_message(other, ALL[0], b"\x08\x01", ALL[0])
        for place in range(FRAMES):
            index = order(place)
            raw = bytes(ROS2.serialize_cdr(image(ROS2, index, PICTURES[index]), IMAGE))
            writer.add_message(ids[place % channels], ALL[index], raw, ALL[index], place)
        writer.finish()
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_chunking": False},
        {"compression": CompressionType.LZ4},
        {"compression": CompressionType.NONE},
        {"is_indexed": lambda chunk: False},
        {"is_indexed": lambda chunk: chunk % 2 == 0},
        {"channels": 3},
        {"channels": 3, "use_chunking": False},
        {"foreign": ("my.Proto", "protobuf", b"\x0a\x00")},
        {"foreign": ("my.Json", "json", b"{}")},
        {"foreign": ("", "json", b"")},
        {"profile": ""},
        {"profile": "", "kind": "sensor_msgs/Image"},
        {"kind": "sensor_msgs::msg::dds_::Image_"},
        {"use_statistics": False},
        {"use_summary_offsets": False, "repeat_channels": False},
        {"repeat_schemas": False},
        {"frames_per_chunk": 1, "order": lambda place: FRAMES - 1 - place},
        {"frames_per_chunk": 1, "is_indexed": lambda chunk: False, "channels": 2},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_mcap_of_every_writer_is_read_whole(options: dict[str, Any], tmp_path: Path) -> None:
    assert read(write_mcap(tmp_path / "a.mcap", **options)) == (ALL, "")


@pytest.mark.parametrize(
    "compression", [CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD]
)
@pytest.mark.parametrize("is_chunked", [True, False])
def test_mcap_cut_anywhere_is_read_to_its_last_whole_message(
    compression: CompressionType, is_chunked: bool, tmp_path: Path
) -> None:
    whole = write_mcap(tmp_path / "a.mcap", compression=compression, use_chunking=is_chunked)
    data, cut = whole.read_bytes(), tmp_path / "cut.mcap"
    counts = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        cut.write_bytes(data[: min(int(len(data) * share), len(data) - 30)])
        stamps, said = read(cut)
        assert stamps == ALL[: len(stamps)]
        # Behind the last message all that is lost is an index.
        assert ("breaks off at byte" in said) == (share < 1)
        counts.append(len(stamps))
        if compression is CompressionType.NONE or not is_chunked:
            assert len(stamps) >= int(FRAMES * share) - 1  # those of a cut chunk, too
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[-1] == FRAMES


@pytest.mark.parametrize("length", [8, 9, 30, 100])
def test_mcap_cut_before_its_first_message(length: int, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(write_mcap(tmp_path / "a.mcap").read_bytes()[:length])
    with Bag(cut) as bag, pytest.raises(SourceError, match=r"holds no images, nothing at all"):
        bag.image_topic()


def test_mcap_chunks_around_a_wrong_checksum_are_read(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", compression=CompressionType.NONE)
    data = bytearray(path.read_bytes())
    at = data.find(PICTURES[5].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    stamps, said = read(path)
    lost = [stamp for stamp in ALL if stamp not in stamps]
    assert ALL[5] in lost
    assert len(lost) < FRAMES / 2
    assert f"{len(stamps)} of 12 messages on {TOPIC}" in said
    assert "checksum" in said


def test_mcap_with_a_hole_is_read_around_it(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    path.write_bytes(data)
    stamps, said = read(path)
    assert (stamps[0], stamps[-1]) == (ALL[0], ALL[-1])
    assert f"{len(stamps)} of 12 messages" in said


def test_images_of_another_encoding_are_named(tmp_path: Path) -> None:
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start(profile="")
        schema = writer.register_schema("foxglove.CompressedImage", "protobuf", b"")
        channel = writer.register_channel("/camera", "protobuf", schema)
        writer.add_message(channel, 1, b"", 1)
        writer.finish()
    with Bag(tmp_path / "a.mcap") as bag, pytest.raises(SourceError) as told:
        bag.image_topic()
    assert "only /camera (foxglove.CompressedImage, protobuf)" in str(told.value).replace(
        "/msg/", "."
    )


def test_ros1_messages_in_mcap(tmp_path: Path) -> None:
    """As `mcap convert` makes it of a ROS 1 bag."""
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros1")
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"")
        channel = writer.register_channel(TOPIC, "ros1", schema)
        for index, picture in enumerate(PICTURES):
            raw = bytes(ROS1.serialize_ros1(image(ROS1, index, picture), IMAGE))
            writer.add_message(channel, ALL[index], raw, ALL[index])
        writer.finish()
    assert read(tmp_path / "a.mcap") == (ALL, "")


def database(bag: Path) -> Path:
    (file,) = bag.glob("*.db3")
    return file


def killed(path: Path, *, keep_metadata: bool = True) -> Path:
    """Write a bag whose second half is in the -wal file only, as a killed recorder leaves it."""
    bag = sign_bag(path / "recording", FRAMES, storage="sqlite3")
    connection = sqlite3.connect(database(bag))
    rows = list(connection.execute("SELECT * FROM messages ORDER BY id"))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("DELETE FROM messages WHERE id > 6")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[6:])
    connection.commit()
    shutil.copytree(bag, path / "killed")
    connection.close()
    if not keep_metadata:
        (path / "killed" / "metadata.yaml").unlink()
    return path / "killed"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}


@pytest.mark.parametrize("keep_metadata", [True, False])
def test_messages_that_a_killed_recorder_left_behind_count(
    keep_metadata: bool, tmp_path: Path
) -> None:
    bag = killed(tmp_path, keep_metadata=keep_metadata)
    before = contents(bag)
    assert [name for name in before if name.endswith("-wal")]
    os.chmod(bag, 0o555)
    assert read(bag) == (ALL, "")
    assert read(database(bag)) == (ALL, "")
    assert contents(bag) == before


def test_messages_that_metadata_announces_are_missed(tmp_path: Path) -> None:
    bag = killed(tmp_path)
    database(bag).with_name(database(bag).name + "-wal").unlink()
    stamps, said = read(bag)
    assert stamps == ALL[:6]
    assert "6 of 12 messages on /camera/image_raw were read" in said


@pytest.mark.parametrize(
    "name", ["drive #3", "really?", "50%25", "2024-05-01 10:30 ü", "-dash", "a\nb", "caf\udce9"]
)
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_names_that_mean_something_elsewhere(name: str, storage: str, tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage=storage).rename(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    assert read(bag) == (ALL, "")
    (file,) = (each for each in bag.iterdir() if each.name != "metadata.yaml")
    assert read(file) == (ALL, "")
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left beside it


def test_a_definition_that_cannot_be_parsed_keeps_nobody_out(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage="sqlite3")
    with sqlite3.connect(database(bag)) as connection:
        connection.execute("UPDATE message_definitions SET encoded_message_definition = '??'")
        connection.execute(
            "INSERT INTO message_definitions VALUES (99, 'my/srv/Do_Event', 'unknown', '', '')"
        )
        connection.execute("INSERT INTO topics VALUES (99, '/do', 'my/srv/Do_Event', '?', '', '')")
    assert read(bag) == (ALL, "")


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("kind", ["sensor_msgs/Image", "sensor_msgs::msg::Image"])
def test_types_as_converters_write_them(storage: str, kind: str, tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage=storage)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(IMAGE, kind))
    if storage == "sqlite3":
        with sqlite3.connect(database(bag)) as connection:
            connection.execute("UPDATE topics SET type = ?", (kind,))
    assert read(bag) == (ALL, "")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sensor_msgs/msg/Image", "sensor_msgs/msg/Image"),
        ("sensor_msgs/Image", "sensor_msgs/msg/Image"),
        ("sensor_msgs::msg::Image", "sensor_msgs/msg/Image"),
        ("sensor_msgs::msg::dds_::Image_", "sensor_msgs/msg/Image"),
        ("my/srv/Do_Event", "my/srv/Do_Event"),
        ("foxglove.CompressedImage", "foxglove.CompressedImage"),
    ],
)
def test_type_names(written: str, meant: str) -> None:
    assert ros2_type(written) == meant


def test_a_damaged_database_is_read_around_the_damage(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage="sqlite3")
    file = database(bag)
    with sqlite3.connect(file) as connection:
        (page,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(file.read_bytes())
    at = data.find(PICTURES[5][100, 100:130].tobytes())
    assert at > 0
    start = at // page * page
    data[start : start + 4] = b"\xff" * 4  # of the chain that holds the picture
    file.write_bytes(data)
    stamps, said = read(bag)
    assert stamps == [stamp for stamp in ALL if stamp != ALL[5]]
    assert "11 of 12 messages" in said


def test_a_cut_database(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage="sqlite3")
    data = database(bag).read_bytes()
    database(bag).write_bytes(data[: len(data) // 2])
    stamps, said = read(bag)
    assert 0 < len(stamps) < FRAMES
    assert stamps == ALL[: len(stamps)]
    assert f"{len(stamps)} of 12 messages" in said


def ros1(path: Path, compression: str = "") -> Path:
    images = [image(ROS1, index, picture) for index, picture in enumerate(PICTURES)]
    return write_ros1(path, {TOPIC: images}, compression)


@pytest.mark.parametrize("compression", ["", "lz4", "bz2"])
def test_ros1_bags_cut_anywhere(compression: str, tmp_path: Path) -> None:
    data = ros1(tmp_path / "a.bag", compression).read_bytes()
    counts = []
    for share in (0.3, 0.6, 0.9, 1.0):
        (tmp_path / "cut.bag").write_bytes(data[: min(int(len(data) * share), len(data) - 30)])
        stamps, said = read(tmp_path / "cut.bag")
        assert stamps == ALL[: len(stamps)]
        assert "breaks off at byte" in said
        counts.append(len(stamps))
    assert counts == sorted(counts)
    assert 0 < counts[1] < counts[-1] == FRAMES


@pytest.mark.parametrize("compression", ["", "lz4", "bz2"])
def test_ros1_bags_without_an_index(compression: str, tmp_path: Path) -> None:
    """As rosbag record leaves an .active file: the header's index position is 0."""
    path = ros1(tmp_path / "a.bag", compression)
    data = bytearray(path.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    (index,) = struct.unpack_from("<Q", data, at)
    data[at : at + 8] = bytes(8)
    path.rename(tmp_path / "a.bag.active").write_bytes(data[:index])
    stamps, said = read(tmp_path / "a.bag.active")
    assert stamps == ALL
    assert "no usable index" in said


def test_ros1_bags_with_a_hole(tmp_path: Path) -> None:
    path = ros1(tmp_path / "a.bag", "lz4")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(data)
    stamps, said = read(path)
    assert (stamps[0], stamps[-1]) == (ALL[0], ALL[-1])
    assert f"{len(stamps)} of 12 messages" in said
    assert len(stamps) < FRAMES


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_folder_without_metadata(storage: str, tmp_path: Path, caplog: Any) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage=storage)
    (bag / "metadata.yaml").unlink()
    assert read(bag) == (ALL, "")
    assert "recorder was killed?" in caplog.text


def split_bag(path: Path) -> Path:
    """Two files of six images each, and the metadata of both."""
    whole = sign_bag(path / "whole", FRAMES)
    halves = []
    for name, part in (("a", range(6)), ("b", range(6, FRAMES))):
        images = [image(ROS2, index, PICTURES[index]) for index in part]
        halves.append(write_ros2(path / name, {TOPIC: images}))
    bag = path / "bag"
    bag.mkdir()
    text = (whole / "metadata.yaml").read_text()
    assert "- whole.mcap" in text
    (bag / "metadata.yaml").write_text(
        text.replace("- whole.mcap", "- a.mcap\n  - b.mcap").replace("path: whole", "path: a")
    )
    for half in halves:
        shutil.copy(half / f"{half.name}.mcap", bag)
    return bag


def test_split_bags(tmp_path: Path) -> None:
    bag = split_bag(tmp_path)
    assert read(bag) == (ALL, "")
    (bag / "b.mcap").unlink()
    stamps, said = read(bag)
    assert stamps == ALL[:6]
    assert "6 of 12 messages" in said
    assert "'b.mcap' is missing" in said


@pytest.mark.parametrize(
    "name", ["bag_{}.mcap", "{0}_bag_2026_01_02-10_{0:02}_00.mcap", "renamed{}.mcap"]
)
@pytest.mark.parametrize("has_metadata", [False, True])
def test_split_files_are_read_in_order_of_time(
    name: str, has_metadata: bool, tmp_path: Path
) -> None:
    """More than nine files: 10 comes before 2 in the alphabet."""
    whole = sign_bag(tmp_path / "whole", FRAMES)
    bag = tmp_path / "bag"
    bag.mkdir()
    for index in range(FRAMES):
        images = [image(ROS2, index, PICTURES[index])]
        part = write_ros2(tmp_path / str(index), {TOPIC: images}, first=index)
        shutil.copy(part / f"{index}.mcap", bag / name.format(index))
    if has_metadata:  # of other names: somebody renamed the files
        shutil.copy(whole / "metadata.yaml", bag)
    stamps, said = read(bag)
    assert (stamps, said) == (ALL, "")
    assert is_bag(bag) or name.startswith("renamed")


@pytest.mark.parametrize("has_metadata", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_compressed_and_decompressed_twins_are_read_once(
    keeps: bool, has_metadata: bool, tmp_path: Path
) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES)
    file = bag / "bag.mcap"
    (bag / "bag.mcap.zstd").write_bytes(zstandard.compress(file.read_bytes()))
    if not keeps:
        file.unlink()
    if not has_metadata:
        (bag / "metadata.yaml").unlink()
    assert read(bag) == (ALL, "")


def test_two_files_of_one_stem_with_different_messages_are_no_copies(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES)
    other = sign_bag(tmp_path / "other", FRAMES + 1)
    (bag / "bag.mcap.zstd").write_bytes(zstandard.compress((other / "other.mcap").read_bytes()))
    stamps, said = read(bag)
    assert stamps == ALL
    assert "'bag.mcap.zstd' was left out, but it holds other messages than 'bag.mcap'" in said


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_an_unfinished_copy_is_left_out(size: int, tmp_path: Path, caplog: Any) -> None:
    """As rosbag2 leaves it if it is killed while it compresses."""
    bag = sign_bag(tmp_path / "bag", FRAMES)
    copy = zstandard.compress((bag / "bag.mcap").read_bytes())[:size]
    (bag / "bag.mcap.zstd").write_bytes(copy)
    assert read(bag) == (ALL, "")
    assert "bag.mcap.zstd' was left out" in caplog.text


def test_a_converted_copy_is_read_once(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES)
    converted = sign_bag(tmp_path / "db3", FRAMES, storage="sqlite3")
    shutil.copy(converted / "db3.db3", bag / "bag.db3")
    assert read(bag) == (ALL, "")


def test_a_folder_with_a_write_ahead_log_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "bag_0.db3-wal").write_bytes(bytes(100))
    with pytest.raises(SourceError, match="bag_0.db3-wal alone is not enough"):
        Bag(tmp_path)


def test_a_ros1_bag_being_recorded_is_read(tmp_path: Path) -> None:
    """Its recorder was killed: the suffix is still there, the index not yet."""
    data = bytearray(ros1(tmp_path / "drive.bag", "").read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    (index,) = struct.unpack_from("<Q", data, at)
    struct.pack_into("<Q", data, at, 0)
    active = tmp_path / "drive.bag.active"
    active.write_bytes(data[:index])
    stamps, said = read(active)
    assert stamps == ALL
    assert "no usable index" in said


def test_bags_of_a_folder_are_found_as_they_are(tmp_path: Path) -> None:
    """Split bags without metadata are one bag, compressed files and unfinished ones are bags."""
    names = ["split/split_0.mcap", "split/split_1.mcap", "a.mcap", "a.mcap.zstd", "b.db3.zstd"]
    names += ["c.bag.active", "renamed/new.mcap", "renamed/metadata.yaml", "c_0.bag", "c_1.bag"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(Path(each).relative_to(tmp_path)) for each in find_bags([str(tmp_path)])]
    assert found == [
        *("a.mcap", "b.db3.zstd", "c.bag.active", "c_0.bag", "c_1.bag", "renamed", "split")
    ]


def test_a_git_lfs_pointer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(SourceError, match="Git LFS pointer.*git lfs pull"):
        Bag(path)


def test_files_that_the_metadata_do_not_list_are_named(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES)
    shutil.copy(bag / "bag.mcap", bag / "bag_1.mcap")
    stamps, said = read(bag)
    assert stamps == ALL
    assert "does not list bag_1.mcap" in said


@pytest.mark.parametrize("generation", ["class_id", "id"])
def test_hypotheses_of_both_generations(generation: str) -> None:
    """An empty name is a name."""
    best = [SimpleNamespace(**{generation: name, "score": 0.5}) for name in ("", "stop")]
    assert hypotheses(SimpleNamespace(results=best)) == (Result("", 0.5), Result("stop", 0.5))


def test_topic_names_are_mapped_to_what_ros2_allows() -> None:
    mapped = ros2_topics(["/a-b", "/a_b", "/cam/0/image_raw", "/x__y//z/", "/ok/image", "/über"])
    assert mapped == {
        "/a-b": "/a_b_2",
        "/a_b": "/a_b",
        "/cam/0/image_raw": "/cam/_0/image_raw",
        "/x__y//z/": "/x_y/z",
        "/ok/image": "/ok/image",
        "/über": "/_ber",
    }
