# SPDX-License-Identifier: Apache-2.0
"""The model store against a real HTTP server on the loopback interface."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.compiled import compiled
from helpers.server import MODEL, Archive
from helpers.toys import write_color_model
from helpers.waiting import WAIT

from repghost_ros.errors import DownloadError, StoreError
from repghost_ros.files import sidecar_of
from repghost_ros.zoo import download
from repghost_ros.zoo.catalogue import MODELS, REPGHOST
from repghost_ros.zoo.download import TEMPORARY
from repghost_ros.zoo.store import ModelStore, resolve, store_root

NAME = "repghostnet_100.onnx"


@pytest.fixture
def store(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("REPGHOST_WEIGHTS_URL", archive.url)
    return ModelStore(tmp_path / "store", archive.url)


def test_downloads_once_and_records_the_hash(archive: Archive, store: ModelStore) -> None:
    told: list[tuple[int, int]] = []
    assert store.find("100", "onnx") is None
    path = store.fetch("100", "onnx", lambda done, total: told.append((done, total)))
    assert path == store.root / NAME
    assert path.read_bytes() == MODEL
    assert told[-1] == (len(MODEL), len(MODEL))
    assert (store.root / f"{NAME}.sha256").read_text().endswith(f"  {NAME}\n")
    assert store.fetch("100", "onnx") == store.find("100", "onnx") == path
    assert len(archive.gets) == 1
    assert store.entries() == [path]


@pytest.mark.parametrize("status", TEMPORARY)
def test_asks_a_busy_server_again(
    status: int, archive: Archive, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_WAITS", (0.0, 0.0))
    archive.refusals = [status]
    assert store.fetch("150", "onnx").is_file()
    archive.refusals = [status] * 3
    with pytest.raises(DownloadError, match=f"now .{status}.*try again later"):
        store.fetch("100", "bin")


def test_a_proxy_that_wants_a_password_is_not_the_archive(
    archive: Archive, store: ModelStore
) -> None:
    archive.refusals = [407]
    with pytest.raises(StoreError, match="proxy wants a name and a password"):
        store.fetch("100", "bin")


@pytest.mark.parametrize("name", ["model.onnx", "model.bin", "model.onnx.data"])
def test_a_pointer_of_git_lfs_is_no_model(name: str, tmp_path: Path) -> None:
    beside: dict[str, Any] = {
        "save_as_external_data": True,
        "location": "model.onnx.data",
        "size_threshold": 0,
    }
    write_color_model(tmp_path / "model.onnx", **beside)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
    (tmp_path / name).write_text(pointer)
    model = tmp_path / name.removesuffix(".data")
    with pytest.raises(StoreError, match="Git LFS pointer.*git lfs pull"):
        resolve("", model.suffix[1:], model_path=str(model))


def test_resumes_what_broke_off(archive: Archive, store: ModelStore) -> None:
    archive.break_after = 100_000
    with pytest.raises(StoreError, match=f"100000 of {len(MODEL)} bytes"):
        store.fetch("100", "onnx")
    assert store.find("100", "onnx") is None
    archive.break_after = None
    assert store.fetch("100", "onnx").read_bytes() == MODEL
    assert archive.gets == [None, "bytes=100000-"]


@pytest.mark.parametrize("fault", ["changed", "no ranges", "no validator"])
def test_begins_afresh_where_it_cannot_resume(
    archive: Archive, store: ModelStore, fault: str
) -> None:
    archive.etag = None if fault == "no validator" else '"one"'
    archive.break_after = 100_000
    with pytest.raises(StoreError):
        store.fetch("100", "onnx")
    archive.break_after = None
    if fault == "changed":
        archive.etag, archive.body = '"two"', MODEL + b"more"
    archive.ranges = fault != "no ranges"
    assert store.fetch("100", "onnx").read_bytes() == archive.body


def test_what_is_resumed_elsewhere_is_not_appended(archive: Archive, store: ModelStore) -> None:
    archive.break_after, archive.resumes_rightly = 100_000, False
    with pytest.raises(StoreError, match="broke off"):
        store.fetch("100", "onnx")
    archive.break_after = None
    with pytest.raises(StoreError, match="elsewhere"):
        store.fetch("100", "onnx")
    assert store.fetch("100", "onnx").read_bytes() == MODEL


def test_a_store_that_can_only_be_read(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.root.mkdir()
    (store.root / NAME).write_bytes(MODEL)

    def refuse(*_: Any, **__: Any) -> None:  # to root, who may run this, everything is allowed
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert store.find("100", "onnx") == store.root / NAME


def test_what_cannot_be_moved_into_the_store_leaves_it_as_it_was(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.fetch("100", "onnx")
    (tmp_path / "new.onnx").write_bytes(MODEL + b"new")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(StoreError, match="No space left"):
        store.adopt("100", "onnx", tmp_path / "new.onnx")
    assert path.read_bytes() == MODEL
    assert store.find("100", "onnx") == path
    assert {p.name for p in store.root.iterdir()} == {NAME, f"{NAME}.sha256", f"{NAME}.lock"}


@pytest.mark.parametrize(
    "body", [b"", b"<html>" + b"sorry " * 2000, b"Not found. " * 1000, b"\x00\x01" * 5000]
)
def test_refuses_what_is_no_model(archive: Archive, store: ModelStore, body: bytes) -> None:
    archive.body = body
    with pytest.raises(StoreError, match="is not a model"):
        store.fetch("100", "onnx")
    assert store.entries() == []
    for packed in (b"\x1f\x8b" + MODEL, bytes(9000), b"\xef\xbb\xbf<!doctype html>" + MODEL):
        archive.body = packed
        with pytest.raises(StoreError, match="is not a model"):
            store.fetch("100", "bin")
    archive.body = MODEL
    assert store.fetch("100", "onnx").read_bytes() == MODEL


def test_names_what_the_archive_does_not_have(archive: Archive, store: ModelStore) -> None:
    archive.status = 404
    with pytest.raises(StoreError, match=NAME) as error:
        store.fetch("100", "onnx")
    assert archive.url in str(error.value)


def test_says_how_to_make_what_the_archive_does_not_have(
    archive: Archive, store: ModelStore
) -> None:
    archive.status = 404
    with pytest.raises(StoreError, match="repghost export 100"):
        store.fetch("100", "onnx")
    archive.status = 403
    with pytest.raises(StoreError, match="REPGHOST_MODEL_URL") as error:
        store.fetch("100", "onnx")
    assert "repghost export" not in str(error.value)


@pytest.mark.parametrize("size", REPGHOST)
def test_writes_a_repghost_from_timms_weights(
    archive: Archive, store: ModelStore, tmp_path: Path, size: str
) -> None:
    """As exact as timm's own network, without torch; the server has Hugging Face's layout."""
    onnxruntime = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    safetensors = pytest.importorskip("safetensors.torch")
    from helpers.networks import network

    name = MODELS[size].timm
    model = network(name)
    safetensors.save_file(model.state_dict(), tmp_path / "model.safetensors")
    weights = (tmp_path / "model.safetensors").read_bytes()
    archive.status = 404
    archive.files[f"/timm/{name}.in1k/resolve/main/model.safetensors"] = weights
    path = store.fetch(size, "onnx")
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        truth = model(images).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = np.concatenate([session.run(None, {"data": x[None].numpy()})[0] for x in images])
    assert np.abs(answers - truth).max() <= 1e-5 * np.abs(truth).max()
    assert hashlib.sha256(weights).hexdigest() in sidecar_of(path).read_text()
    assert {each.name for each in store.root.iterdir()} == {
        path.name,
        sidecar_of(path).name,
        f"{path.name}.lock",
    }


def test_refuses_weights_of_something_else(
    archive: Archive, store: ModelStore, tmp_path: Path
) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    pytest.importorskip("onnx")
    archive.status = 404
    address = "/timm/repghostnet_100.in1k/resolve/main/model.safetensors"
    for content, why in (
        (numpy.save({"fc.weight": np.zeros((9, 9), np.float32)}), "not the weights of a RepGhost"),
        (b"<html>", "does not hold weights"),
    ):
        archive.files[address] = content
        with pytest.raises(StoreError, match=why) as error:
            store.fetch("100", "onnx")
        assert "repghost export 100" in str(error.value)
    assert store.find("100", "onnx") is None


def test_a_model_that_nobody_compiled(store: ModelStore) -> None:
    with pytest.raises(StoreError, match="repghost quantize 50"):
        store.fetch("50", "bin")


def branched(path: Path) -> bytes:
    """Write a model of a convolution beside the tensor itself: one convolution computes both."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    image, sums = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8, 8, 8])
        for name in ("data", "output")
    )
    kernel = np.random.default_rng(0).normal(size=(8, 8, 9, 9)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["data", "kernel"], ["1"], pads=[4, 4, 4, 4]),
        helper.make_node("Add", ["1", "data"], ["output"]),
    ]
    weights = [onnx.numpy_helper.from_array(kernel, "kernel")]
    graph = helper.make_graph(nodes, "g", [image], [sums], weights)
    opsets = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=6), path)
    return path.read_bytes()


def test_fuses_what_it_downloads(archive: Archive, store: ModelStore, tmp_path: Path) -> None:
    archive.body = branched(tmp_path / "original.onnx")
    path = store.fetch("100", "onnx")
    import onnx

    assert [node.op_type for node in onnx.load(path).graph.node] == ["Conv"]
    recorded = (store.root / f"{NAME}.sha256").read_text().splitlines()
    assert recorded[0] == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {NAME}"
    assert recorded[1] == f"# fused, was {hashlib.sha256(archive.body).hexdigest()}"
    assert {p.name for p in store.root.iterdir()} == {NAME, f"{NAME}.sha256", f"{NAME}.lock"}
    assert store.find("100", "onnx") == store.fetch("100", "onnx") == path
    done = subprocess.run(["sha256sum", "--check", f"{NAME}.sha256"], cwd=store.root, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_keeps_the_original_where_it_cannot_fuse(
    missing: str,
    archive: Archive,
    store: ModelStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive.body = branched(tmp_path / "original.onnx")
    monkeypatch.setitem(sys.modules, missing, None)
    assert store.fetch("100", "onnx").read_bytes() == archive.body
    assert f"not fused: {missing} is needed" in caplog.text
    assert len((store.root / f"{NAME}.sha256").read_text().splitlines()) == 1


def test_refuses_what_is_compiled_for_another_board(
    archive: Archive, store: ModelStore, tmp_path: Path
) -> None:
    archive.body = compiled(tmp_path / "x3.bin", MARCH="bernoulli2").read_bytes()
    with pytest.raises(StoreError, match=r"bernoulli2 \(RDK X3\)"):
        store.fetch("100", "bin")
    with pytest.raises(StoreError, match="bernoulli2"):
        store.adopt("100", "bin", tmp_path / "x3.bin")
    store.path("100", "bin").write_bytes(archive.body)
    with pytest.raises(StoreError, match="bernoulli2"):
        store.find("100", "bin")
    store.path("100", "bin").unlink()
    archive.body = compiled(tmp_path / "x5.bin").read_bytes()
    assert store.fetch("100", "bin").read_bytes() == archive.body


def test_offline_says_which_file_goes_where(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "http://127.0.0.1:9/")
    with pytest.raises(StoreError) as error:
        store.fetch("150", "bin")
    assert "http://127.0.0.1:9/RepGhost_150_224x224_nv12.bin" in str(error.value)
    assert str(tmp_path / "RepGhost_150_224x224_nv12.bin") in str(error.value)


def test_takes_a_file_put_there_by_hand(archive: Archive, store: ModelStore) -> None:
    store.root.mkdir()
    (store.root / NAME).write_bytes(MODEL)
    assert store.find("100", "onnx") == store.root / NAME
    assert (store.root / f"{NAME}.sha256").is_file()
    assert not archive.gets


def test_names_a_file_that_changed(store: ModelStore) -> None:
    path = store.fetch("100", "onnx")
    path.write_bytes(MODEL[:-1] + b"?")
    with pytest.raises(StoreError, match="not what was recorded"):
        store.find("100", "onnx")


def test_a_directory_that_cannot_be_written(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be stored"):
        ModelStore(tmp_path / "file" / "store", archive.url).fetch("100", "onnx")


def _fetch(root: Path, url: str) -> None:
    assert ModelStore(root, url).fetch("100", "onnx").read_bytes() == MODEL


def test_two_processes_download_once(archive: Archive, store: ModelStore) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch, args=(store.root, archive.url)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT)
        assert process.exitcode == 0
    assert len(archive.gets) == 1


@pytest.mark.parametrize("model", ["999", "../100", ""])
def test_unknown_models_are_named(store: ModelStore, model: str) -> None:
    with pytest.raises(StoreError, match="unknown"):
        store.path(model, "onnx")


def test_resolves_in_order(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPGHOST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REPGHOST_MODEL_URL", archive.url)
    own = tmp_path / "own.onnx"
    with pytest.raises(StoreError, match=r"own\.onnx"):
        resolve("100", "onnx", model_path=str(own))
    own.write_bytes(MODEL)
    assert resolve("100", "onnx", model_path=str(own)) == own
    assert resolve("demo", "onnx").name == "demo.onnx"
    assert resolve("demo", "bin").is_file()
    assert resolve("100", "onnx") == tmp_path / "home" / NAME
    assert resolve("100", "onnx") == tmp_path / "home" / NAME
    assert len(archive.gets) == 1


def test_the_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPGHOST_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert store_root() == Path("/cache/repghost_ros")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store_root() == Path.home() / ".cache" / "repghost_ros"
