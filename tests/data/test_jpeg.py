"""Baseline JPEGs are read by libjpeg-turbo: to the pixels of Pillow, which reads all others."""

import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from alexnet_jax.data import images, jpeg
from alexnet_jax.data.images import UnreadableImage, decode

SIZES = [(1, 1), (7, 5), (8, 8), (16, 17), (33, 64), (61, 47)]  # height, width


def photo(height: int = 61, width: int = 47, seed: int = 0) -> np.ndarray:
    """Smooth colors with noise: neither quantization nor interpolated colors are trivial."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 7), np.cos(columns / 5), np.sin((rows + columns) / 9)], -1)
    return (120 + 80 * waves + rng.normal(0, 20, waves.shape)).clip(0, 255).astype(np.uint8)


def encode(image: np.ndarray, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(encoded: bytes, marker: int, content: bytes) -> bytes:
    return encoded[:2] + segment(marker, content) + encoded[2:]


def outcome(encoded: bytes) -> np.ndarray | str:
    """Return the pixels, or the reason why there are none."""
    try:
        return decode(encoded)
    except UnreadableImage as error:
        return str(error)


@pytest.fixture
def by_pillow(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], np.ndarray | str]:
    """Return the function that gives the outcome with Pillow alone."""

    def read(encoded: bytes) -> np.ndarray | str:
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "decode_baseline", lambda *_: None)
            return outcome(encoded)

    return read


def is_direct(encoded: bytes) -> bool:
    """Return whether the file is read without Pillow's decoder, intact as it is."""
    header = jpeg.read_header(encoded)
    return header is not None and jpeg.decode_baseline(encoded, header) is not None


def check_same(encoded: bytes, pillow: np.ndarray | str) -> None:
    pixels = outcome(encoded)
    assert type(pixels) is type(pillow), (pixels, pillow)
    np.testing.assert_array_equal(pixels, pillow)


@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_subsampling_quality_and_size_is_as_in_pillow(subsampling, quality, by_pillow):
    for height, width in SIZES:
        image = photo(height, width)
        encoded = simplejpeg.encode_jpeg(image, quality, colorsubsampling=subsampling)
        assert is_direct(encoded)
        check_same(encoded, by_pillow(encoded))


DIRECT: dict[str, dict[str, Any]] = {
    "subsampling 0": {"subsampling": 0},
    "subsampling 1": {"subsampling": 1},
    "subsampling 2": {"subsampling": 2},
    "restart markers": {"restart_marker_blocks": 2},
    "restart rows": {"restart_marker_rows": 1, "subsampling": 0},
    "optimized": {"optimize": True},
    "comment": {"comment": b"a photograph"},
    "profile": {"icc_profile": bytes(70_000)},  # of two segments
    "resolution": {"dpi": (300, 300)},
    "not converted": {"keep_rgb": True},  # Adobe's segment says RGB
    "upright": {"exif": turned(1)},
    "no orientation": {"exif": Image.Exif()},
}
BY_PILLOW: dict[str, dict[str, Any]] = {
    "16 bit tables": {"qtables": [[300] * 64, [300] * 64]},  # an extended frame
    "progressive": {"progressive": True},
    "gray": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


@pytest.mark.parametrize("options", DIRECT.values(), ids=DIRECT)
def test_what_photographs_have_is_read_directly(options, by_pillow):
    encoded = encode(photo(), **options)
    assert is_direct(encoded)
    check_same(encoded, by_pillow(encoded))


@pytest.mark.parametrize("options", BY_PILLOW.values(), ids=BY_PILLOW)
def test_other_kinds_are_read_by_pillow(options, by_pillow):
    encoded = encode(photo(), **options)
    assert jpeg.read_header(encoded) is None
    check_same(encoded, by_pillow(encoded))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_and_xmp_turn_the_picture(orientation, by_pillow):
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    by_xmp = with_segment(encode(photo()), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
    by_exif = encode(photo(), exif=turned(orientation))
    upright = decode(encode(photo()))
    for encoded in (by_exif, by_xmp):
        check_same(encoded, by_pillow(encoded))
        assert np.array_equal(decode(encoded), upright) == (orientation == 1)


def test_a_prepared_record_is_read_without_pillow(monkeypatch):
    encoded = images.encode(photo(), "jpeg")
    expected = decode(encoded)
    monkeypatch.setattr(Image, "open", lambda _: pytest.fail("Pillow"))
    pixels = decode(memoryview(b"four" + encoded)[4:])
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.flags.writeable


def test_the_first_of_several_pictures_counts(by_pillow):
    file = io.BytesIO()
    first, second = Image.fromarray(photo()), Image.fromarray(photo(seed=1))
    first.save(file, "MPO", save_all=True, append_images=[second])
    check_same(file.getvalue(), by_pillow(file.getvalue()))
    np.testing.assert_array_equal(decode(file.getvalue()), decode(encode(photo())))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda file: with_segment(file, 0xE0, b"JFIF\0"), id="short JFIF"),
        pytest.param(lambda file: with_segment(file, 0xEE, b"Adobe"), id="short Adobe"),
        pytest.param(lambda file: with_segment(file, 0xE2, b"ICC_PROFILE\0"), id="short profile"),
        pytest.param(lambda file: with_segment(file, 0xE2, b"ICC_PROFILE\0\1"), id="no number"),
        pytest.param(lambda file: with_segment(file, 0xE1, b"Exif\0\0MM"), id="short EXIF"),
        pytest.param(lambda file: with_segment(file, 0xED, b"Photoshop 3.0\0008BIM"), id="short"),
        pytest.param(lambda file: with_segment(file, 0xDB, bytes(3)), id="short table"),
        pytest.param(lambda file: with_segment(file, 0xDD, b""), id="no interval"),
        pytest.param(lambda file: file[:2] + b"\xff\xfe\0\0" + file[2:], id="length 0"),
        pytest.param(lambda file: file[:2] + b"\xff" + file[2:], id="fill byte"),
        pytest.param(lambda file: file[:2] + b"junk" + file[2:], id="junk"),
        pytest.param(lambda file: file.replace(b"\xff\xc0", b"\xff\xc1"), id="extended"),
        pytest.param(
            lambda file: file.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), id="12"
        ),
        pytest.param(lambda file: file + b"more", id="bytes after the end"),
        pytest.param(lambda file: file[:-2] + file[-2:] * 2, id="two ends"),
        pytest.param(lambda file: file[:-2] + file[file.index(b"\xff\xda") :], id="two scans"),
        pytest.param(lambda file: file[:3], id="start alone"),
        pytest.param(lambda file: file[: file.index(b"\xff\xda") + 14] + b"\xff\xd9", id="no data"),
    ],
)
def test_what_is_unusual_has_the_same_outcome(changed, by_pillow):
    encoded = changed(encode(photo()))
    assert encoded != encode(photo())
    check_same(encoded, by_pillow(encoded))


def test_a_file_cut_off_anywhere_is_reported_as_by_pillow(by_pillow):
    whole = encode(photo(24, 40))
    for length in range(1, len(whole)):
        for encoded in (whole[:length], whole[:length] + b"\xff\xd9"):
            check_same(encoded, by_pillow(encoded))
    assert "truncated" in str(outcome(whole[: len(whole) - 9]))


def test_damaged_files_have_the_same_outcome(by_pillow):
    rng, kinds = np.random.default_rng(0), set()
    originals = [encode(photo(24, 40), **options) for options in DIRECT.values()]
    for number in range(600):
        damaged = bytearray(originals[number % len(originals)][:])
        reach = min(len(damaged), 700) if number % 2 else len(damaged)  # half in the header
        for place in rng.integers(0, reach, 1 + number % 3):
            damaged[place] = rng.integers(256)
        pillow = by_pillow(bytes(damaged))
        check_same(bytes(damaged), pillow)
        kinds.add((type(pillow), is_direct(bytes(damaged))))
    assert kinds >= {(np.ndarray, True), (np.ndarray, False), (str, False)}


def test_a_bomb_is_refused_before_its_pixels_are_allocated(monkeypatch):
    encoded = bytearray(encode(photo()))
    place = encoded.index(b"\xff\xc0") + 5
    encoded[place : place + 4] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500
    monkeypatch.setattr(jpeg, "decode_baseline", lambda *_: pytest.fail("decoded"))
    assert "suspiciously many pixels" in str(outcome(bytes(encoded)))
    turned_bomb = with_segment(bytes(encoded), 0xE1, b"Exif\0\0" + bytes(8))
    assert "suspiciously many pixels" in str(outcome(turned_bomb))


VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": lambda pixels: pixels,
    "crop": lambda pixels: pixels[3:9, 2:7],
    "flipped": lambda pixels: pixels[:, ::-1],
    "one color": lambda pixels: pixels[..., 1],
    "reshaped": lambda pixels: pixels.reshape(-1, 3)[::7],
    "memoryview": lambda pixels: pixels.data,
    "other type": lambda pixels: pixels.view(np.int8),
    "read-only": lambda pixels: np.broadcast_to(pixels, (2, *pixels.shape)),
    "base": lambda pixels: pixels.base,
    "on a device": jax.device_put,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_pixels_in_use_are_not_overwritten(view):
    # Records of one size are decoded to the same memory once nothing refers to it.
    files = [encode(photo(64, 64, seed)) for seed in range(4)]
    shown = view(decode(files[0]))
    before = np.array(shown)
    for encoded in files[1:]:
        later = decode(encoded)
        assert (np.array(shown) == before).all()
        del later
    np.testing.assert_array_equal(before, np.array(view(decode(files[0]))))


def test_all_of_many_pixels_in_use_are_kept():
    files = [encode(photo(64, 64, seed)) for seed in range(8)]
    together = [decode(file) for file in files]
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(decode, files * 4))
    for file, *pixels in zip(files * 4, together * 4, in_threads, strict=True):
        for some in pixels:
            np.testing.assert_array_equal(some, decode(file))


def test_memory_is_used_again_but_not_kept_for_large_photographs():
    file = encode(photo(64, 64))
    addresses = {decode(file).ctypes.data for _ in range(5)}
    assert len(addresses) == 1
    large = encode(photo(700, 700))
    assert decode(large).nbytes > jpeg.MAX_REUSED
    assert jpeg._last.memory.size == 64 * 64 * 3


def members(archive: Path, number: int) -> Iterator[bytes]:
    """Yield JPEG files spread over an archive."""
    with tarfile.open(archive) as tar:
        names = [m for m in tar.getmembers() if m.name.lower().endswith((".jpg", ".jpeg"))]
        for member in names[:: max(1, len(names) // number)][:number]:
            file = tar.extractfile(member)
            assert file is not None
            yield file.read()


@pytest.mark.parametrize(
    ("archive", "number", "fewest"),
    [("imagenet-samples.tar", 700, 600), ("caltech101.tar", 300, 200)],
)
def test_photographs_are_as_in_pillow(archive, number, fewest, real_data, by_pillow):
    direct = total = 0
    for encoded in members(real_data / archive, number):
        check_same(encoded, by_pillow(encoded))
        direct += is_direct(encoded)
        total += 1
    assert total == number
    assert direct >= fewest


def test_the_real_awkward_files_are_as_in_pillow(real_data, by_pillow):
    files = sorted(path for path in (real_data / "edge-cases").iterdir() if path.suffix != ".csv")
    assert len(files) == 21
    for path in files:
        check_same(path.read_bytes(), by_pillow(path.read_bytes()))
