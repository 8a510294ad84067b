"""Colours and textures of the generated data set: muted backgrounds, vivid fills."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

Colour = Float32[np.ndarray, " 3"]  # RGB, 0 .. 255


def colour(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> Float32[np.ndarray, " 3"]:
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * np.float32(255)


def background(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w 3"]:
    """Two muted colours mixed by a pattern, uneven light, and a few stray lines."""
    first = colour(rng, saturation=(0.0, 0.45), value=(0.2, 0.95))
    second = colour(rng, saturation=(0.0, 0.45), value=(0.2, 0.95))
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))](rng, size)
    image = _mix(first, second, pattern)
    image *= 0.75 + 0.5 * _clouds(rng, size, coarsest=2)[..., None]
    for _ in range(int(rng.integers(0, 5))):
        ends = rng.integers(-size // 8, size + size // 8, (3, 2)).astype(np.int32)
        stroke = colour(rng, saturation=(0.0, 0.6), value=(0.1, 1.0)).tolist()
        cv2.polylines(image, [_bend(ends)], isClosed=False, color=stroke, thickness=1, lineType=cv2.LINE_AA)
    return np.clip(image, 0, 255)


def fill(rng: np.random.Generator, size: int, tint: Colour) -> Float32[np.ndarray, "h w 3"]:
    """The surface of an object: one colour, or two in a pattern, with a gradient of brightness."""
    shade = _gradient(rng, size)[..., None] * np.float32(0.35) + np.float32(0.8)
    if rng.random() < 0.5:
        return np.clip(tint * shade, 0, 255)
    other = tint * np.float32(rng.uniform(0.35, 0.7)) + np.float32(rng.uniform(0, 90))
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))](rng, size)
    return np.clip(_mix(tint, other, pattern) * shade, 0, 255)


def _mix(first: Colour, second: Colour, pattern: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    return first + (second - first) * pattern[..., None]


def _bend(ends: np.ndarray) -> np.ndarray:
    """A smooth curve between two ends, bent towards the third point (quadratic Bezier)."""
    t = np.linspace(0, 1, 24)[:, None]
    return np.rint((1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]).astype(np.int32)


def _plane(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    """Distance along a random direction, in pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))


def _period(rng: np.random.Generator, size: int) -> float:
    return size * rng.uniform(0.03, 0.14)


def _wave(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    phase = rng.uniform(0, 2 * np.pi)
    return np.sin(_plane(rng, size) * np.float32(2 * np.pi / _period(rng, size)) + np.float32(phase))


def _stripes(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    return np.clip(_wave(rng, size) * 3, -1, 1) / 2 + np.float32(0.5)


def _checks(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    return np.clip(_wave(rng, size) * _wave(rng, size) * 4, -1, 1) / 2 + np.float32(0.5)


def _dots(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    return np.clip((_wave(rng, size) + _wave(rng, size) - 1) * 4, -1, 1) / 2 + np.float32(0.5)


def _gradient(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    plane = _plane(rng, size)
    return (plane - plane.min()) / np.ptp(plane)


def _clouds(rng: np.random.Generator, size: int, coarsest: int = 4) -> Float32[np.ndarray, "h w"]:
    """Value noise: random grids, each twice as fine as the one before and with half its weight."""
    noise = np.zeros((size, size), np.float32)
    for octave in range(4):
        cells = coarsest * 2**octave
        grid = rng.random((cells, cells), np.float32) / 2**octave
        noise += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.min()) / np.ptp(noise)


def _grain(rng: np.random.Generator, size: int) -> Float32[np.ndarray, "h w"]:
    noise = cv2.GaussianBlur(rng.random((size, size), np.float32), (0, 0), rng.uniform(0.6, 2.0))
    return (noise - noise.min()) / np.ptp(noise)


PATTERNS = (_clouds, _stripes, _checks, _dots, _gradient, _grain)
