# SPDX-License-Identifier: Apache-2.0
"""Road signs drawn by the package: the demo model's training and test sets, and its demo camera.

A `Scene` is one place with at most one sign in it: background, clutter, light, lens and a short
camera move. `render` is one instant of one scene, `sequence` yields scene after scene. Everything
is determined by the given random generator, so a seed names a picture (to within the rounding of the
OpenCV in use).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Point = tuple[float, float]
Color = tuple[int, int, int]

# BGR
RED: Color = (38, 28, 196)
BLUE: Color = (168, 84, 16)
YELLOW: Color = (28, 196, 246)
WHITE: Color = (242, 242, 242)
BLACK: Color = (24, 24, 24)
GREEN: Color = (72, 150, 24)

FACE_SIZE = 512  # pixels a sign's face is drawn at; smaller ones are averaged from it
MIN_SIDE = 32  # pixels; below, no sign can be told from another


# --- the faces -----------------------------------------------------------------------------------


def _arc(
    x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360
) -> list[Point]:
    """Points of an elliptic arc, angles in degrees, 0 = right, growing clockwise."""
    angles = np.radians(np.linspace(start, end, 48))
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]


def _ngon(n: int, radius: float, turn: float = 0.0) -> list[Point]:
    """Corners of a regular polygon; `turn` is the first corner's angle in degrees."""
    angles = np.radians(turn + 360 * np.arange(n) / n)
    return [(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angles]


# Strokes of the few characters in use, in a box x -0.5..0.5, y -1..1 (y down).
_GLYPHS: dict[str, list[list[Point]]] = {
    "0": [_arc(0, 0, 0.5, 1)],
    "3": [_arc(0, -0.5, 0.5, 0.5, -150, 90) + _arc(0, 0.5, 0.5, 0.5, -90, 150)],
    "5": [[(0.45, -1), (-0.38, -1), (-0.43, 0.0), *_arc(0, 0.35, 0.5, 0.65, 215, 510)]],
    "8": [_arc(0, -0.5, 0.44, 0.5), _arc(0, 0.5, 0.5, 0.5)],
    "S": [_arc(0, -0.5, 0.5, 0.5, -30, -270) + _arc(0, 0.5, 0.5, 0.5, -90, 150)],
    "T": [[(-0.55, -1), (0.55, -1)], [(0, -1), (0, 1)]],
    "O": [_arc(0, 0, 0.5, 1)],
    "P": [[(-0.45, 1), (-0.45, -1), (0, -1), *_arc(0, -0.5, 0.5, 0.5, -90, 90), (-0.45, 0)]],
}


class _Face:
    """A transparent canvas, x and y in -1..1 (y down); drawings on it are opaque."""

    def __init__(self) -> None:
        self._side = 2 * FACE_SIZE  # supersampled
        self._canvas: Image = np.zeros((self._side, self._side, 4), np.uint8)

    def _pixels(self, points: Sequence[Point]) -> NDArray[np.int32]:
        return np.rint((np.asarray(points) * 0.98 + 1) * self._side / 2).astype(np.int32)

    def fill(self, points: Sequence[Point], color: Color) -> None:
        cv2.fillPoly(self._canvas, [self._pixels(points)], (*color, 255))

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        self.fill([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def disc(self, radius: float, color: Color, at: Point = (0, 0)) -> None:
        self.fill(_arc(*at, radius, radius), color)

    def stroke(self, points: Sequence[Point], width: float, color: Color) -> None:
        thickness = max(1, round(width * self._side / 2))
        cv2.polylines(self._canvas, [self._pixels(points)], False, (*color, 255), thickness)

    def arrow(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a stroke with a head, whose base is at the last point."""
        self.stroke(points, width, color)
        tip = np.asarray(points[-1])
        along = tip - np.asarray(points[-2])
        along = along / np.hypot(*along)
        across = np.array([-along[1], along[0]])
        wing = 1.25 * width * across
        corners = (tip + 1.3 * width * along, tip + wing, tip - wing)
        self.fill([(float(x), float(y)) for x, y in corners], color)

    def text(self, text: str, height: float, spacing: float, width: float, color: Color) -> None:
        for i, character in enumerate(text):
            x = (i - (len(text) - 1) / 2) * spacing
            for points in _GLYPHS[character]:
                scaled = [(x + px * spacing * 0.68, py * height / 2) for px, py in points]
                self.stroke(scaled, width, color)

    def image(self) -> Image:
        """(FACE_SIZE, FACE_SIZE, 4) BGRA, colors premultiplied by alpha."""
        size = (FACE_SIZE, FACE_SIZE)
        return np.asarray(cv2.resize(self._canvas, size, interpolation=cv2.INTER_AREA), np.uint8)


def _stop(face: _Face) -> None:
    face.fill(_ngon(8, 1.06, 22.5), WHITE)
    face.fill(_ngon(8, 0.98, 22.5), RED)
    face.text("STOP", 0.60, 0.40, 0.105, WHITE)


def _yield(face: _Face) -> None:
    _triangle(face, -1)


def _triangle(face: _Face, up: int) -> None:
    """Draw a white triangle with a red border, its tip up (1) or down (-1)."""
    for scale, color in ((1.0, WHITE), (0.95, RED), (0.58, WHITE)):
        corners = [(0.0, -0.98), (0.99, 0.76), (-0.99, 0.76)]
        center = 0.18
        face.fill([(x * scale, up * ((y - center) * scale + center)) for x, y in corners], color)


def _ring(face: _Face) -> None:
    face.disc(1.0, WHITE)
    face.disc(0.96, RED)
    face.disc(0.74, WHITE)


def _blue_disc(face: _Face) -> None:
    face.disc(1.0, WHITE)
    face.disc(0.95, BLUE)


def _no_entry(face: _Face) -> None:
    face.disc(1.0, WHITE)
    face.disc(0.95, RED)
    face.box(-0.72, -0.19, 0.72, 0.19, WHITE)


def _speed_limit(digits: str) -> Callable[[_Face], None]:
    def draw(face: _Face) -> None:
        _ring(face)
        face.text(digits, 0.78, 0.60, 0.145, BLACK)

    return draw


def _no_parking(face: _Face) -> None:
    face.disc(1.0, WHITE)
    face.disc(0.97, RED)
    face.disc(0.76, BLUE)
    face.stroke([(-0.58, -0.58), (0.58, 0.58)], 0.19, RED)


def _no_overtaking(face: _Face) -> None:
    _ring(face)
    for x, color in ((-0.31, RED), (0.31, BLACK)):
        face.box(x - 0.27, 0.02, x + 0.27, 0.26, color)
        for top, bottom, roof, paint in ((0.16, 0.24, -0.24, color), (0.11, 0.16, -0.17, WHITE)):
            cabin = [(x - top, roof), (x + top, roof), (x + bottom, 0.02), (x - bottom, 0.02)]
            face.fill(cabin, paint)
        for wheel in (x - 0.2, x + 0.2):
            face.box(wheel - 0.06, 0.2, wheel + 0.06, 0.36, color)


def _priority_road(face: _Face) -> None:
    face.fill(_ngon(4, 1.0), BLACK)
    face.fill(_ngon(4, 0.97), WHITE)
    face.fill(_ngon(4, 0.66), YELLOW)


def _walker(face: _Face, x: float, y: float, scale: float) -> None:
    """Draw a striding figure, its hip at (x, y)."""

    def at(points: Sequence[Point]) -> list[Point]:
        return [(x + px * scale, y + py * scale) for px, py in points]

    face.disc(0.15 * scale, BLACK, *at([(0.08, -0.72)]))
    face.stroke(at([(0.04, -0.46), (0.0, 0.0)]), 0.24 * scale, BLACK)
    face.stroke(at([(0.0, 0.0), (0.24, 0.3), (0.3, 0.66)]), 0.14 * scale, BLACK)
    face.stroke(at([(0.0, 0.0), (-0.14, 0.34), (-0.4, 0.62)]), 0.14 * scale, BLACK)
    face.stroke(at([(0.04, -0.48), (0.34, -0.18)]), 0.1 * scale, BLACK)
    face.stroke(at([(0.02, -0.48), (-0.28, -0.2)]), 0.1 * scale, BLACK)


def _pedestrian_crossing(face: _Face) -> None:
    face.box(-0.97, -0.97, 0.97, 0.97, WHITE)
    face.box(-0.92, -0.92, 0.92, 0.92, BLUE)
    face.fill([(0, -0.8), (0.82, 0.72), (-0.82, 0.72)], WHITE)
    _walker(face, 0.0, 0.17, 0.58)
    for x in (-0.48, -0.16, 0.16, 0.48):
        face.fill([(x - 0.09, 0.6), (x + 0.07, 0.6), (x + 0.09, 0.68), (x - 0.11, 0.68)], BLACK)


def _roundabout(face: _Face) -> None:
    _blue_disc(face)
    for turn in (0, 120, 240):
        face.arrow(_arc(0, 0, 0.5, 0.5, turn + 85, turn), 0.19, WHITE)


def _turn_ahead(direction: int) -> Callable[[_Face], None]:
    """Draw a bent arrow on a blue disc: -1 to the left, 1 to the right."""

    def draw(face: _Face) -> None:
        _blue_disc(face)
        shaft = [(-0.22, 0.66), (-0.22, -0.14), (-0.14, -0.24), (0.3, -0.24)]
        face.arrow([(direction * x, y) for x, y in shaft], 0.24, WHITE)

    return draw


def _straight_ahead(face: _Face) -> None:
    _blue_disc(face)
    face.arrow([(0, 0.66), (0, -0.32)], 0.26, WHITE)


def _road_works(face: _Face) -> None:
    _triangle(face, 1)
    face.disc(0.1, BLACK, (-0.02, -0.24))
    face.stroke([(-0.1, -0.08), (-0.2, 0.26)], 0.17, BLACK)
    face.stroke([(-0.2, 0.26), (-0.32, 0.56)], 0.11, BLACK)
    face.stroke([(-0.2, 0.26), (-0.04, 0.56)], 0.11, BLACK)
    face.stroke([(-0.08, -0.06), (0.12, 0.16)], 0.09, BLACK)
    face.stroke([(-0.14, 0.02), (0.28, 0.36)], 0.06, BLACK)
    face.fill([(0.1, 0.6), (0.3, 0.3), (0.52, 0.6)], BLACK)


def _traffic_lights(face: _Face) -> None:
    _triangle(face, 1)
    face.box(-0.17, -0.36, 0.17, 0.54, BLACK)
    for y, color in ((-0.2, RED), (0.09, YELLOW), (0.38, GREEN)):
        face.disc(0.125, color, (0, y))


_DRAW: dict[str, Callable[[_Face], None]] = {
    "stop": _stop,
    "yield": _yield,
    "no entry": _no_entry,
    "speed limit 30": _speed_limit("30"),
    "speed limit 50": _speed_limit("50"),
    "speed limit 80": _speed_limit("80"),
    "no parking": _no_parking,
    "no overtaking": _no_overtaking,
    "priority road": _priority_road,
    "pedestrian crossing": _pedestrian_crossing,
    "roundabout": _roundabout,
    "turn left ahead": _turn_ahead(-1),
    "turn right ahead": _turn_ahead(1),
    "straight ahead": _straight_ahead,
    "road works": _road_works,
    "traffic lights ahead": _traffic_lights,
}

NO_SIGN = "no sign"
LABELS: tuple[str, ...] = (*_DRAW, NO_SIGN)


@cache
def face(label: str, size: int = FACE_SIZE) -> Image:
    """Draw the sign itself, from the front: (size, size, 4) BGRA uint8, premultiplied by alpha.

    Raises ValueError for a label without a sign. The array is shared and read-only.
    """
    if label not in _DRAW:
        raise ValueError(f"no sign is called {label!r}; the signs are: {', '.join(_DRAW)}")
    canvas = _Face()
    _DRAW[label](canvas)
    image = canvas.image()
    if size != FACE_SIZE:
        image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    image.setflags(write=False)
    return image


# --- the scene -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pose:
    """A sign's position in the frame, and its rotation."""

    x: float  # center, fraction of the width
    y: float  # center, fraction of the height
    size: float  # side of the sign's square, fraction of the frame's shorter side
    yaw: float  # degrees, about the pole
    pitch: float  # degrees, nodding
    roll: float  # degrees, in the picture

    @staticmethod
    def random(rng: np.random.Generator) -> Pose:
        """Draw a random pose that shows the whole sign."""
        size = rng.uniform(0.36, 0.80)
        room = 0.5 - 0.42 * size  # a corner may leave the frame, the sign may not
        return Pose(
            x=0.5 + rng.uniform(-room, room),
            y=0.48 + rng.uniform(-room, room),
            size=size,
            yaw=rng.uniform(-38, 38),
            pitch=rng.uniform(-14, 14),
            roll=rng.normal(0, 4),
        )

    def towards(self, other: Pose, t: float) -> Pose:
        """Return the pose a fraction `t` (0..1) of the way to `other`."""
        return Pose(*((1 - t) * np.array(astuple(self)) + t * np.array(astuple(other))))

    def corners(self, width: int, height: int) -> NDArray[np.float32]:
        """(4, 2) float32 pixels: where the face's corners are seen, clockwise from top left."""
        yaw, pitch, roll = np.radians([self.yaw, self.pitch, self.roll])
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        x, y = (square @ turn.T).T
        x, z = x * np.cos(yaw), x * np.sin(yaw)
        y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
        depth = 1 + z / 5  # a camera five half-signs away
        half = self.size * min(width, height) / 2
        seen = np.stack([x, y], 1) / depth[:, None] * half + [self.x * width, self.y * height]
        return np.asarray(seen, np.float32)


def _color(rng: np.random.Generator, low: int = 20, high: int = 235) -> Color:
    b, g, r = (int(v) for v in rng.integers(low, high, 3))
    return b, g, r


def _gray(rng: np.random.Generator, low: int, high: int, tint: int = 12) -> Color:
    b, g, r = (int(v) for v in rng.integers(low, high) + rng.integers(-tint, tint + 1, 3))
    return b, g, r


def _field(
    rng: np.random.Generator, width: int, height: int, cells: int, channels: int
) -> NDArray[np.float32]:
    """Smooth noise in -1..1: (height, width[, channels]) float32, about `cells` bumps across."""
    coarse = rng.uniform(-1, 1, (cells, cells, channels)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


def _gradient(image: Image, top: ArrayLike, bottom: ArrayLike) -> None:
    ramp = np.linspace(0, 1, image.shape[0], dtype=np.float32)[:, None, None]
    image[:] = (np.asarray(top) * (1 - ramp) + np.asarray(bottom) * ramp).astype(np.uint8)


def _street(rng: np.random.Generator, width: int, height: int) -> Image:
    """Sky, houses, trees, verge and road."""
    image = np.empty((height, width, 3), np.uint8)
    horizon = int(height * rng.uniform(0.45, 0.7))
    haze = _gray(rng, 150, 225)
    sky = (int(rng.integers(120, 245)), *_gray(rng, 100, 200)[1:])
    _gradient(image[:horizon], sky, haze)
    verge = rng.integers([30, 70, 50], [80, 150, 120])
    _gradient(image[horizon:], verge, 0.75 * verge)

    x = 0
    while x < width:
        wide = int(width * rng.uniform(0.12, 0.35))
        if rng.random() < 0.55:
            _house(image, rng, x, wide, horizon)
        elif rng.random() < 0.7:
            leaf = rng.integers([20, 60, 20], [70, 130, 90])
            for _ in range(7):
                center = x + rng.uniform(0, wide), horizon - height * rng.uniform(0, 0.22)
                shade = (leaf * rng.uniform(0.7, 1.15)).tolist()
                radius = int(height * rng.uniform(0.04, 0.11))
                cv2.circle(image, (int(center[0]), int(center[1])), radius, shade, -1)
        x += wide

    vanishing = (int(width * rng.uniform(0.2, 0.8)), horizon)
    left, right = int(width * rng.uniform(-0.5, 0.3)), int(width * rng.uniform(0.7, 1.5))
    road = np.array([vanishing, (right, height), (left, height)], np.int32)
    cv2.fillPoly(image, [road], _gray(rng, 65, 120, 6))
    middle = (left + right) // 2
    for near, far in ((0.95, 0.7), (0.6, 0.47), (0.4, 0.32), (0.28, 0.24)):
        a, b = (
            (int(vanishing[0] + t * (middle - vanishing[0])), int(horizon + t * (height - horizon)))
            for t in (near, far)
        )
        cv2.line(image, a, b, (205, 210, 210), max(1, int(near * width * 0.018)), cv2.LINE_AA)
    return image


def _house(image: Image, rng: np.random.Generator, x: int, wide: int, ground: int) -> None:
    """Draw a front with rows of windows, standing on row `ground`."""
    tall = int(ground * rng.uniform(0.25, 0.95))
    wall = _gray(rng, 70, 200, 25)
    cv2.rectangle(image, (x, ground - tall), (x + wide, ground), wall, -1)
    pane = _gray(rng, 40, 200, 15)
    step = max(6, int(wide / rng.integers(3, 6)))
    for top in range(ground - tall + step // 3, ground - step // 2, step):
        for left in range(x + step // 4, x + wide - step // 2, step):
            cv2.rectangle(image, (left, top), (left + step // 2, top + step // 2), pane, -1)


def _wall(rng: np.random.Generator, width: int, height: int) -> Image:
    """Blurred color only, like a hedge, a wall or a crowd."""
    relief = 30 * _field(rng, width, height, int(rng.integers(3, 8)), 1)
    relief += 20 * _field(rng, width, height, int(rng.integers(12, 40)), 1)
    image = 22 * _field(rng, width, height, int(rng.integers(3, 8)), 3)
    image += np.array(_gray(rng, 60, 190, 30), np.float32) + relief[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _distractor(image: Image, rng: np.random.Generator) -> None:
    """Something colored that is not a road sign: a blob, a board, a poster, bars, a pennant."""
    height, width = image.shape[:2]
    reach = min(width, height) * rng.uniform(0.04, 0.22)
    center = rng.uniform(0, [width, height])
    color = (RED, BLUE, YELLOW, WHITE, _color(rng))[int(rng.integers(5))]
    tilt = float(rng.normal(0, 12))
    sides = reach * rng.uniform(0.5, 1.3, 2)

    def box(cx: float, cy: float, w: float, h: float) -> NDArray[np.int32]:
        turn = np.radians(tilt)
        axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        local = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) + [cx, cy]
        return np.asarray(np.rint(local @ axes + center), np.int32)

    kind = int(rng.integers(5))
    if kind == 0:
        blob = [int(v) for v in center], [max(1, int(v)) for v in sides]
        cv2.ellipse(image, *blob, tilt, 0, 360, color, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.fillPoly(image, [box(0, 0, *sides)], color, cv2.LINE_AA)
    elif kind == 2:  # a poster: a picture above lines of print
        w, h = sides
        ink = _color(rng)
        cv2.fillPoly(image, [box(0, 0, w, h)], color, cv2.LINE_AA)
        printed = [box(0, -0.45 * h, 0.8 * w, 0.35 * h)]
        for line in (0.1, 0.35, 0.6, 0.85):
            half = rng.uniform(0.4, 0.8)
            printed.append(box((half - 0.8) * w, line * h, half * w, 0.05 * h))
        cv2.fillPoly(image, printed, ink, cv2.LINE_AA)
    elif kind == 3:  # a barrier's stripes
        second = _color(rng)
        for i in range(6):
            stripe = box((i - 2.5) * reach * 0.4, 0, reach * 0.2, reach * 0.2)
            cv2.fillPoly(image, [stripe], color if i % 2 else second, cv2.LINE_AA)
    else:
        corners = center + rng.uniform(-reach, reach, (3, 2))
        cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], color, cv2.LINE_AA)


class Scene:
    """One place: its objects, its light, and how the camera moves past it."""

    def __init__(self, label: str, rng: np.random.Generator, width: int, height: int) -> None:
        """Build the place around the sign `label`, for frames of width x height pixels.

        Raises ValueError for an unknown label or a side below MIN_SIDE.
        """
        if label not in LABELS:
            raise ValueError(f"unknown label {label!r}; one of: {', '.join(LABELS)}")
        if min(width, height) < MIN_SIDE:
            raise ValueError(f"{width}x{height} is too small, {MIN_SIDE} pixels a side at least")
        self.label, self.width, self.height = label, width, height

        # The area that the camera can pan over.
        self._margin = (max(1, width // 16), max(1, height // 16))
        place = _street if rng.random() < 0.65 else _wall
        self._background = place(rng, width + self._margin[0], height + self._margin[1])
        for _ in range(rng.poisson(2.0 if label != NO_SIGN else 4.0)):
            _distractor(self._background, rng)
        self._pan = rng.uniform(0, 1, (2, 2))

        self._start = Pose.random(rng)
        self._end = self._start.towards(Pose.random(rng), 0.5)
        self._paint = rng.uniform(0.82, 1.05) * rng.uniform(0.92, 1.08, 3).clip(None, 1.05)
        self._pole = _gray(rng, 80, 180, 5) if rng.random() < 0.8 else None
        # A twig before the sign: its middle and half its length, fractions of the sign's box.
        twig = rng.uniform([[0.1, 0.1], [-0.6, -0.6]], [[0.9, 0.9], [0.6, 0.6]])
        self._twig = twig if rng.random() < 0.2 else None
        self._twig_color = _gray(rng, 20, 90, 15)

        cast = rng.normal(1, 0.05, 3).clip(0.85, 1.15).astype(np.float32)
        coarse = max(8, width // 4), max(8, height // 4)
        light = rng.uniform(0.55, 1.15) * (1 + 0.22 * _field(rng, *coarse, 2, 1))
        if rng.random() < 0.3:  # a shadow
            light = light * np.where(_field(rng, *coarse, 3, 1) > 0, 1.0, rng.uniform(0.5, 0.8))
        self._light = cv2.resize(light.astype(np.float32), (width, height))[..., None] * cast

        scale = min(width, height) / 224
        self._blur = scale * max(0.0, rng.normal(0.3, 0.5))  # sigma, pixels
        self._motion = int(scale * rng.uniform(2, 6)) if rng.random() < 0.25 else 0  # pixels
        self._noise = rng.uniform(1, 9)  # standard deviation, gray levels
        self._quality = int(rng.integers(35, 96)) if rng.random() < 0.6 else None  # JPEG

    def frame(self, t: float, rng: np.random.Generator) -> Image:
        """Render the view at `t` (0..1 of the camera's move): BGR uint8 (height, width, 3), contiguous.

        `rng` is the sensor's noise only.
        """
        (x0, y0), (x1, y1) = self._pan
        left = round((x0 + t * (x1 - x0)) * self._margin[0])
        top = round((y0 + t * (y1 - y0)) * self._margin[1])
        image = self._background[top : top + self.height, left : left + self.width].copy()
        if self.label != NO_SIGN:
            self._put_sign(image, self._start.towards(self._end, t))

        lit = cv2.multiply(image, self._light, dtype=cv2.CV_32F)
        if self._motion > 1:
            lit = cv2.blur(lit, (self._motion, 1))
        if self._blur > 0.2:
            lit = cv2.GaussianBlur(lit, (0, 0), self._blur)
        noise = rng.standard_normal((self.height, self.width), np.float32) * np.float32(self._noise)
        seen = cv2.add(lit, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
        if self._quality is not None:
            _, jpeg = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
            seen = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # type: ignore[assignment]
        return np.asarray(seen, np.uint8)

    def _put_sign(self, image: Image, pose: Pose) -> None:
        corners = pose.corners(self.width, self.height)
        if self._pole is not None:
            middle, half = pose.x * self.width, max(1.0, 0.03 * pose.size * min(image.shape[:2]))
            top, foot = (
                (int(middle - half), int(pose.y * self.height)),
                (int(middle + half), self.height),
            )
            cv2.rectangle(image, top, foot, self._pole, -1)

        # Work in the sign's bounding box only, from the face just larger than what is seen.
        low = np.floor(corners.min(0)).clip(0, None)
        high = np.ceil(corners.max(0)).clip(None, [self.width, self.height])
        x, y, w, h = (int(v) for v in (*low, *(high - low)))
        size = FACE_SIZE
        while size > 64 and size // 2 >= np.ptp(corners, axis=0).max():
            size //= 2
        square = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
        to_box = cv2.getPerspectiveTransform(square, corners - low.astype(np.float32))
        seen = np.asarray(cv2.warpPerspective(face(self.label, size), to_box, (w, h)), np.uint8)
        sign = seen[..., :3] * self._paint.astype(np.float32)
        if self._twig is not None:
            (cx, cy), (dx, dy) = self._twig
            a, b = ((int(w * (cx + k * dx)), int(h * (cy + k * dy))) for k in (-1, 1))
            thickness = max(1, w // 22)
            cv2.line(sign, a, b, self._twig_color, thickness, cv2.LINE_AA)
            cv2.line(seen, a, b, (0, 0, 0, 255), thickness, cv2.LINE_AA)
        there = image[y : y + h, x : x + w]
        through = 1 - seen[..., 3:].astype(np.float32) / 255
        there[:] = np.clip(there * through + sign, 0, 255).astype(np.uint8)


def render(label: str | int, rng: np.random.Generator, width: int, height: int) -> Image:
    """Render a picture of the sign `label` (its name, or its index in LABELS).

    Returns (height, width, 3) BGR uint8, fixed by the state of `rng`. Raises ValueError for an
    unknown label and for a side below MIN_SIDE pixels.
    """
    if not isinstance(label, str):
        if not 0 <= label < len(LABELS):
            raise ValueError(f"label index {label} is outside 0..{len(LABELS) - 1}")
        label = LABELS[label]
    scene = Scene(label, rng, width, height)
    return scene.frame(rng.uniform(), rng)


def sequence(
    seed: int, width: int, height: int, frames_per_scene: int = 60
) -> Iterator[tuple[str, Image]]:
    """Yield scenes endlessly: (label, (height, width, 3) BGR uint8) frame by frame.

    Every label appears once in each round of len(LABELS) scenes, in an order shuffled by the seed.
    """
    rng = np.random.default_rng(seed)
    while True:
        for index in rng.permutation(len(LABELS)):
            scene = Scene(LABELS[index], rng, width, height)
            for i in range(frames_per_scene):
                yield scene.label, scene.frame(i / max(1, frames_per_scene - 1), rng)
