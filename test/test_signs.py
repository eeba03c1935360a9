# SPDX-License-Identifier: Apache-2.0
"""The road-sign renderer: fixed by its seed, any frame size, signs that can be told apart."""

from itertools import combinations, islice

import numpy as np
import pytest

from repghost_ros.sources import signs
from repghost_ros.sources.signs import LABELS, NO_SIGN, Pose, Scene, face, render, sequence


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_at_least_twelve_signs_and_no_sign():
    assert len(set(LABELS)) == len(LABELS) >= 13
    assert LABELS[-1] == NO_SIGN


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize(("width", "height"), [(224, 224), (640, 480), (97, 161)])
def test_every_label_renders_at_any_size(label, width, height):
    picture = render(label, rng(1), width, height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.std() > 3, "a blank picture"


@pytest.mark.parametrize("size", [(32, 32), (33, 301), (1000, 32)])
def test_extreme_sizes_render(size):
    for seed in range(30):
        assert render(seed % len(LABELS), rng(2, seed), *size).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("label", LABELS)
def test_a_seed_names_a_picture(label):
    first, again, other = (render(label, rng(seed), 160, 120) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_an_index_is_its_label():
    for index, label in enumerate(LABELS):
        np.testing.assert_array_equal(render(index, rng(3), 64, 64), render(label, rng(3), 64, 64))


def test_numpy_integers_are_indices():
    np.testing.assert_array_equal(
        render(np.int64(2), rng(3), 64, 64),  # type: ignore[arg-type]
        render(2, rng(3), 64, 64),
    )


@pytest.mark.parametrize("label", ["Stop", "", -1, len(LABELS)])
def test_unknown_labels_are_refused(label):
    with pytest.raises(ValueError, match="label"):
        render(label, rng(0), 64, 64)


@pytest.mark.parametrize("size", [(31, 64), (64, 0), (-5, 64)])
def test_too_small_frames_are_refused(size):
    with pytest.raises(ValueError, match="too small"):
        render("stop", rng(0), *size)


def test_no_sign_has_no_face():
    with pytest.raises(ValueError, match="no sign"):
        face(NO_SIGN)


def test_faces_differ_from_each_other():
    faces = {label: face(label, 64).astype(int) for label in LABELS if label != NO_SIGN}
    for a, b in combinations(faces, 2):
        assert np.abs(faces[a] - faces[b]).mean() > 3, (a, b)


def test_left_and_right_turns_are_mirror_images():
    left, right = face("turn left ahead").astype(int), face("turn right ahead")
    assert np.abs(left[:, ::-1] - right).mean() < 2


def test_faces_are_premultiplied_and_shared_read_only():
    sign = face("yield", 128)
    assert sign is face("yield", 128)
    assert (sign[..., :3] <= sign[..., 3:]).all()
    assert sign[0, 0, 3] == 0, "a triangle does not fill its square"
    with pytest.raises(ValueError, match="read-only"):
        sign[0, 0] = 1


def test_a_sign_facing_the_camera_is_seen_as_a_square():
    corners = Pose(x=0.5, y=0.5, size=0.5, yaw=0, pitch=0, roll=0).corners(400, 200)
    np.testing.assert_allclose(corners, [[150, 50], [250, 50], [250, 150], [150, 150]], atol=1e-3)


def test_a_sign_turned_away_is_narrower_and_its_near_edge_taller():
    corners = Pose(x=0.5, y=0.5, size=0.5, yaw=35, pitch=0, roll=0).corners(400, 200)
    left, right = corners[3, 1] - corners[0, 1], corners[2, 1] - corners[1, 1]
    assert np.ptp(corners[:, 0]) < 90
    assert left > right + 5


def test_poses_blend_linearly():
    a, b = Pose.random(rng(1)), Pose.random(rng(2))
    assert a.towards(b, 0.0) == a
    assert a.towards(b, 1.0) == b
    assert a.towards(b, 0.5).x == pytest.approx((a.x + b.x) / 2)


def test_signs_stay_in_the_frame():
    for seed in range(500):
        pose = Pose.random(rng(4, seed))
        (left, top), (right, bottom) = (f(pose.corners(100, 100), axis=0) for f in (np.min, np.max))
        assert min(left, top) > -20, pose
        assert max(right, bottom) < 120, pose


def test_a_scene_moves_smoothly():
    scene = Scene("stop", rng(11), 160, 120)
    views = [scene.frame(t, rng(0)).astype(int) for t in (0.0, 0.02, 1.0)]
    assert 0 < np.abs(views[0] - views[1]).mean() < np.abs(views[0] - views[2]).mean()


def test_only_the_noise_comes_from_the_frame_s_generator():
    scene = Scene("stop", rng(11), 160, 120)
    noisy, again = scene.frame(0.3, rng(0)), scene.frame(0.3, rng(1))
    assert (noisy != again).any()
    assert np.abs(noisy.mean((0, 1)) - again.mean((0, 1))).max() < 1


def test_a_sequence_shows_every_label_once_a_round_and_holds_it():
    shown = [label for label, _ in islice(sequence(7, 48, 48, 3), 3 * 2 * len(LABELS))]
    scenes = shown[::3]
    assert shown == [label for label in scenes for _ in range(3)]
    for turn in (scenes[: len(LABELS)], scenes[len(LABELS) :]):
        assert sorted(turn) == sorted(LABELS)


def test_a_sequence_is_fixed_by_its_seed():
    first, again, other = (
        np.stack([picture for _, picture in islice(sequence(seed, 64, 48, 2), 6)])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_label_file_lists_the_labels(request):
    lines = (request.config.rootpath / "labels" / "demo.txt").read_text(encoding="utf-8")
    assert lines == "".join(f"{label}\n" for label in signs.LABELS)
