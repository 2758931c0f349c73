"""The synthetic data set: patterned objects, computed from (split, index), without files.

An object in one of four colors carries one of five patterns, which makes 20 classes, "red stripes"
to "blue dots". The pattern alone leaves four possible classes, the color alone five. Everything
else varies independently of the class: position, size, outline, tilt, period and phase of the
pattern, which tone is lighter, background, pebbles, light and noise.

Colors differ by displacements of zero luma (Rec. 601), and lumas do not depend on the color, so the
gray image of a scene is the same in all four. A flipped scene is another scene of the same class.

Every platform computes the same images: NumPy guarantees the raw stream of Philox (NEP 19), and
double precision differs between platforms by far less than rounding to 8 bits shows.
"""

import math
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np
from PIL import Image

from alexnet_jax.config import invalid
from alexnet_jax.data.sources import Record
from alexnet_jax.storage.digest import digest

SIDE = 72  # pixels
SIZES = {"train": 4000, "validation": 1000, "test": 1000}
PATTERNS = ("stripes", "bars", "checks", "rings", "dots")  # stripes are horizontal, bars vertical
COLORS = {"red": (-15, 44), "yellow": (-43, 6), "green": (-28, -37), "blue": (44, -13)}  # Cb, Cr
CLASS_NAMES = tuple(f"{color} {pattern}" for pattern in PATTERNS for color in COLORS)

SEED = 2012
PEBBLES = 8  # two of them in front of the object
GRID = 7  # points per side of the background's coarse noise

# What varies, each value uniform between its two bounds. Lengths are in pixels, lumas and chromas
# in gray levels, angles in degrees, phases in periods.
RANGES = {
    "x": (-7, 7),  # of the object's center, relative to the image's
    "y": (-7, 7),
    "radius": (16, 24),  # of the object
    "stretch": (-0.15, 0.15),  # fraction by which it is wider, and lower
    "outline": (0, 3),  # below 1 disc, below 2 square, else octagon
    "turn": (-180, 180),  # of the outline
    "tilt": (-15, 15),  # of the pattern
    "period": (7, 13),  # of the pattern
    "phase_u": (0, 1),  # of the pattern, across
    "phase_v": (0, 1),  # of the pattern, down; outward for rings
    "luma": (105, 150),  # of the object, midway between its two tones
    "contrast": (20, 45),  # difference of luma between the two tones
    "polarity": (-1, 1),  # positive: the colored tone is the lighter one
    "hue": (-12, 12),  # rotation of the color's hue
    "saturation": (0.7, 1.15),  # factor of the color
    "ground_luma": (95, 160),
    "ground_hue": (-180, 180),
    "ground_chroma": (5, 30),
    "paper": (0, len(PATTERNS)),  # which pattern the background has faintly, in luma only
    "paper_contrast": (0, 18),
    "paper_turn": (-180, 180),
    "paper_period": (6, 14),
    "light_x": (-0.15, 0.15),  # fraction by which the right edge is brighter, the left darker
    "light_y": (-0.15, 0.15),
    "cast_blue": (-7, 7),  # Cb and Cr of the light
    "cast_red": (-7, 7),
    "noise": (5, 20),  # maximum deviation of a value
}


class Scene(NamedTuple):
    """Everything about an image except its class."""

    values: dict[str, float]  # by name in RANGES
    coarse: np.ndarray  # [3, GRID, GRID], 0 to 1: mottles of Y, Cb, Cr in the background
    pebbles: np.ndarray  # [5, PEBBLES], 0 to 1: x, y, size, hue, luma
    grain: np.ndarray  # uint8 [SIDE, SIDE, 3]: the noise


class Synthetic:
    """One split of records {"image": uint8 [72, 72, 3], "label": int}, each computed once."""

    class_names = CLASS_NAMES

    def __init__(self, split: str):
        if split not in SIZES:
            raise invalid("split", split, f"must be one of {', '.join(SIZES)}", "try train")
        self.split = split
        self._images: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return SIZES[self.split]

    def __getitem__(self, index: SupportsIndex) -> Record:
        index = int(index)
        label = _label(self.split, index)
        if index not in self._images:
            image = paint(scene(self.split, index), label)
            image.flags.writeable = False
            self._images[index] = image
        return {"image": self._images[index], "label": label}

    def describe(self, index: int) -> str:
        """Identify a record in messages."""
        return f"synthetic {self.split}:{index} ({CLASS_NAMES[_label(self.split, index)]})"

    def fingerprint(self) -> str:
        """Digest what determines the images: seed, split, number and classes."""
        return digest(SEED, self.split, len(self), self.class_names)


def save(split: str, folder: Path, count: int) -> list[Path]:
    """Write the first `count` images of a split as PNG files; return their paths.

    They go to class folders below `folder / split`, a layout that `data.source=folder` reads.
    """
    source, files = Synthetic(split), []
    for index in range(count):
        record = source[index]
        files.append(folder / split / CLASS_NAMES[record["label"]] / f"{index:04}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(record["image"]).save(files[-1])
    return files


def scene(split: str, index: int) -> Scene:
    """Draw the scene of record `index` of `split`."""
    sizes = len(RANGES), 3 * GRID * GRID, 5 * PEBBLES, 3 * SIDE * SIDE // 8
    key = np.array([SEED, list(SIZES).index(split) << 32 | index], np.uint64)
    bits = np.random.Philox(key=key).random_raw(sum(sizes))
    values, coarse, pebbles, grain = np.split(bits, np.cumsum(sizes)[:-1])
    low, high = np.array(list(RANGES.values()), float).T
    return Scene(
        dict(zip(RANGES, (low + (high - low) * _uniform(values)).tolist(), strict=True)),
        _uniform(coarse).reshape(3, GRID, GRID),
        _uniform(pebbles).reshape(5, PEBBLES),
        grain.astype("<u8").view(np.uint8).reshape(SIDE, SIDE, 3),
    )


def paint(scene: Scene, label: int) -> np.ndarray:
    """Paint a scene with an object of class `label`: uint8 [72, 72, 3]."""
    pattern, color = divmod(label, len(COLORS))
    values = scene.values
    ycc = _background(values, scene.coarse)
    _draw_pebbles(ycc, scene.pebbles[:, 2:])
    _draw_object(ycc, values, PATTERNS[pattern], list(COLORS.values())[color])
    _draw_pebbles(ycc, scene.pebbles[:, :2])
    ycc[1] += values["cast_blue"]
    ycc[2] += values["cast_red"]
    ycc *= 1 + (values["light_x"] * _X + values["light_y"] * _Y) * (2 / SIDE)
    image = (_RGB @ ycc.reshape(3, -1)).T.reshape(SIDE, SIDE, 3)
    image += (scene.grain - 127.5) * (values["noise"] / 127.5)
    return np.rint(image).clip(0, 255).astype(np.uint8)


def object_mask(scene: Scene) -> np.ndarray:
    """Return the pixels of a scene's object, bool [72, 72]; pebbles may cover some of them."""
    return _inside_object(scene.values) >= 0.5


def _wave(pattern: str, u: np.ndarray, v: np.ndarray, phase_u: float, phase_v: float) -> np.ndarray:
    """Return the pattern at (u, v), in periods: positive for one tone, negative for the other."""
    match pattern:
        case "stripes":
            return _triangle(v + phase_v)
        case "bars":
            return _triangle(u + phase_u)
        case "rings":
            return _triangle(np.sqrt(u * u + v * v) + phase_v)
        case "checks":  # two cells per period, enlarged to match the others' coarseness
            return 1.5 * _triangle(u / 1.4 + phase_u) * _triangle(v / 1.4 + phase_v)
        case _:
            u, v = _triangle(u / 1.2 + phase_u) + 1, _triangle(v / 1.2 + phase_v) + 1
            return 1.44 - np.sqrt(u * u + v * v)


def _triangle(x: np.ndarray) -> np.ndarray:
    """Return a triangle wave of period 1 that starts at 1."""
    return np.abs(x - np.floor(x) - 0.5) * 4 - 1


def _background(values: dict[str, float], coarse: np.ndarray) -> np.ndarray:
    """Return Y, Cb and Cr [3, 72, 72] of a mottled background with a faint pattern."""
    angle, chroma = math.radians(values["ground_hue"]), values["ground_chroma"]
    ground = values["ground_luma"], chroma * math.cos(angle), chroma * math.sin(angle)
    mottles = np.array([50, 20, 20])[:, None, None] * (_SPREAD @ (coarse - 0.5) @ _SPREAD.T)
    ycc = np.array(ground)[:, None, None] + mottles
    u, v = _rotate(_X, _Y, values["paper_turn"], values["paper_period"])
    tone = _wave(PATTERNS[int(values["paper"])], u, v, 0.0, 0.0).clip(-1, 1)
    ycc[0] += values["paper_contrast"] / 2 * tone
    return ycc


def _draw_pebbles(ycc: np.ndarray, pebbles: np.ndarray) -> None:
    """Draw small discs of any color over the image, in place."""
    for x, y, size, hue, luma in pebbles.T:
        dx, dy = _X - (x - 0.5) * SIDE, _Y - (y - 0.5) * SIDE
        inside = (3 + 5 * size - np.sqrt(dx * dx + dy * dy)).clip(0, 1)
        angle = 2 * math.pi * hue
        _cover(ycc, inside, 100 + 60 * luma, 42 * math.cos(angle), 42 * math.sin(angle))


def _draw_object(
    ycc: np.ndarray, values: dict[str, float], pattern: str, color: tuple[int, int]
) -> None:
    """Draw the object over the image with a soft shadow, in place."""
    x, y = _in_object(values)
    inside = _inside_object(values)
    ycc[0] *= 1 - 0.3 * ((inside + 5) / 8).clip(0, 1)
    u, v = _rotate(x, y, values["tilt"], values["period"])
    tone = _wave(pattern, u, v, values["phase_u"], values["phase_v"]) * values["period"] / 4
    tone = tone.clip(-1, 1) / 2  # edges are two pixels wide at any period
    colored = 0.5 + math.copysign(1, values["polarity"]) * tone
    saturation = values["saturation"] * (0.1 + 0.9 * colored)
    blue, red = _rotate(*color, values["hue"])
    luma = values["luma"] + values["contrast"] * tone
    _cover(ycc, inside.clip(0, 1), luma, saturation * blue, saturation * red)


def _in_object(values: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return every pixel's position relative to the object's center, without its stretch."""
    x = (_X - values["x"]) / (1 + values["stretch"])
    return x, (_Y - values["y"]) * (1 + values["stretch"])


def _inside_object(values: dict[str, float]) -> np.ndarray:
    """Return by how many pixels each pixel lies inside the object's outline, negative outside."""
    turned = _rotate(*_in_object(values), values["turn"])
    return values["radius"] - _radius(values["outline"], *turned)


def _radius(outline: float, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the radius of the disc, square or octagon around the center through (u, v)."""
    if outline < 1:
        return np.sqrt(u * u + v * v)
    u, v = np.abs(u), np.abs(v)
    square = np.maximum(u, v) * 1.12
    return square if outline < 2 else np.maximum(square, (u + v) * 0.79)


def _rotate(x, y, degrees: float, unit: float = 1.0):
    """Return (x, y) in axes rotated by `degrees`, in multiples of `unit`."""
    cos, sin = math.cos(math.radians(degrees)) / unit, math.sin(math.radians(degrees)) / unit
    return cos * x + sin * y, cos * y - sin * x


def _cover(ycc: np.ndarray, opacity: np.ndarray, luma, blue, red) -> None:
    for plane, value in zip(ycc, (luma, blue, red), strict=True):
        plane += opacity * (value - plane)


def _label(split: str, index: int) -> int:
    if not 0 <= index < SIZES[split]:
        raise IndexError(f"record {index}: must be from 0 to {SIZES[split] - 1} in {split!r}.")
    return index % len(CLASS_NAMES)


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Return words of 64 random bits as numbers in [0, 1)."""
    return (bits >> np.uint64(11)) * 2.0**-53


_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])  # from Y, Cb, Cr (JFIF)
_X = np.arange(SIDE)[None, :] - (SIDE - 1) / 2
_Y = _X.T
# [SIDE, GRID]: interpolates linearly between GRID points.
_SPREAD = (1 - np.abs(np.linspace(0, GRID - 1, SIDE)[:, None] - np.arange(GRID))).clip(0)
