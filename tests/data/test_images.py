"""Unusual image files of every kind: generated ones, and real ones if there are real data."""

import csv
import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from alexnet_jax.data import images as module
from alexnet_jax.data.crops import resize_center
from alexnet_jax.data.images import UnreadableImage, decode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, green over blue, white: no two of the eight orientations look the same."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = WHITE
    return image


def encode(image: Image.Image | np.ndarray, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_rgb_png_comes_back_exactly():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    decoded = decode(encode(image))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 1, 3), (256, 256, 3)])
def test_raw_records_come_back_exactly_and_are_not_copied(shape: tuple[int, int, int]):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoded = module.encode(image, "raw")
    for form in (encoded, memoryview(b"four" + encoded)[4:]):
        np.testing.assert_array_equal(decode(form), image)
        assert np.shares_memory(decode(form), np.frombuffer(form, np.uint8))
    assert encoded == encode(image, "PPM")  # as anybody writes it


def test_jpeg_records_come_back_nearly():
    image = quadrants(64, 64)
    encoded = module.encode(image, "jpeg")
    assert encoded.startswith(b"\xff\xd8")
    np.testing.assert_array_equal(decode(memoryview(encoded)), decode(encoded))
    assert np.abs(decode(encoded).astype(int) - image).mean() < 6


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"P6\n2 1\n255\n" + bytes(range(6)) + b"more", [[(0, 1, 2), (3, 4, 5)]]),
        (b"P6 2 1 255 " + bytes(range(6)), [[(0, 1, 2), (3, 4, 5)]]),
        (b"P6\n# by hand\n2 1\n255\n" + bytes(range(6)), [[(0, 1, 2), (3, 4, 5)]]),
        (b"P6\n2 1\n3\n" + bytes([0, 1, 2, 3, 3, 3]), [[(0, 85, 170), WHITE]]),
        (b"P5\n2 1\n255\n" + bytes([0, 9]), [[(0, 0, 0), (9, 9, 9)]]),
    ],
)
def test_other_ppm_files_are_read_as_well(encoded: bytes, expected: list):
    np.testing.assert_array_equal(decode(encoded), expected)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"P6\n2 1\n255\n" + bytes(5), "damaged: .*truncated"),
        (b"P6\n2 1\n255\n", "damaged: .*truncated"),
        (b"P6\n0 9\n255\n", "damaged|no image format"),
        (b"P6\n-2 -1\n255\n" + bytes(6), "damaged|no image format"),
        (b"P6\n2 1\n70000\n" + bytes(6), "damaged|no image format"),
        (b"P6\n999999999 999999999\n255\n" + bytes(6), "suspiciously many pixels"),
    ],
)
def test_damaged_raw_records_are_unreadable(encoded: bytes, reason: str):
    with pytest.raises(UnreadableImage, match=reason):
        decode(encoded)


def test_cmyk_jpeg_with_adobes_inverted_inks_keeps_its_colors():
    encoded = encode(Image.fromarray(quadrants()).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in encoded
    # Read the wrong way round, red would be cyan and white black: 255 off.
    assert np.abs(decode(encoded).astype(int) - quadrants()).mean() < 6


def test_gray_fills_all_three_channels():
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for encoded in (encode(gray), encode(gray, "JPEG", quality=100)):
        decoded = decode(encoded)
        assert decoded.shape == (8, 8, 3)
        assert np.abs(decoded.astype(int) - gray[..., None]).max() <= 2


def test_one_bit_is_black_and_white():
    bits = np.array([[0, 255], [255, 0]], np.uint8)
    decoded = decode(encode(Image.fromarray(bits).convert("1")))
    np.testing.assert_array_equal(decoded, np.repeat(bits[..., None], 3, 2))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_and_not_clipped(form: str):
    gray = np.array([[0, 128, 129, 257], [32896, 65000, 65534, 65535]], np.uint16)
    decoded = decode(encode(gray, form))
    expected = [[0, 0, 1, 1], [128, 253, 255, 255]]  # round(value / 257)
    np.testing.assert_array_equal(decoded, np.repeat(np.array(expected)[..., None], 3, 2))


def test_16_bit_gray_may_have_a_transparent_level():
    gray = np.array([[8224, 8225], [65535, 0]], np.uint16)
    decoded = decode(encode(gray, "PNG", transparency=8224))
    np.testing.assert_array_equal(decoded[..., 0], [[255, 32], [255, 0]])


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (10, 20, 30, 0), WHITE),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (0, 100, 200, 51), (204, 224, 244)),  # a fifth of the color, four of white
        ("LA", (40, 0), WHITE),
        ("LA", (40, 255), (40, 40, 40)),
    ],
)
def test_transparency_is_composited_on_white(mode: str, color: tuple, expected: tuple):
    decoded = decode(encode(Image.new(mode, (3, 2), color)))
    np.testing.assert_array_equal(decoded, np.broadcast_to(expected, (2, 3, 3)))


def test_palette_with_alpha_and_without():
    image = Image.new("P", (4, 1))
    image.putpalette([*RED, *GREEN, *BLUE, 7, 7, 7])
    image.putdata([0, 1, 2, 3])
    np.testing.assert_array_equal(decode(encode(image)), [[RED, GREEN, BLUE, (7, 7, 7)]])
    # An alpha for each color (bytes), and one transparent color (a number): both are in use.
    alphas = encode(image, transparency=bytes([255, 0, 255, 0]))
    np.testing.assert_array_equal(decode(alphas), [[RED, WHITE, BLUE, WHITE]])
    number = encode(image, transparency=2)
    np.testing.assert_array_equal(decode(number), [[RED, GREEN, WHITE, (7, 7, 7)]])
    np.testing.assert_array_equal(
        decode(encode(image, "GIF", transparency=3)), [[RED, GREEN, BLUE, WHITE]]
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_orientation_is_undone(orientation: int, form: str):
    # What a camera stores so that the tag restores the upright picture (EXIF 2.3, tag 274).
    upright = quadrants()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    decoded = decode(encode(np.ascontiguousarray(stored), form, exif=exif.tobytes(), **options))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 6


def test_16_bit_gray_is_turned_too():
    exif = Image.Exif()
    exif[274] = 6
    decoded = decode(encode(np.array([[0, 65535]], np.uint16), exif=exif.tobytes()))
    np.testing.assert_array_equal(decoded[..., 0], [[0], [255]])


def test_corrupt_exif_does_not_cost_the_picture():
    # A directory of 99 entries that ends early: Pillow warns, and the image must not be lost.
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 99)
    decoded = decode(encode(quadrants(), "JPEG", quality=95, exif=exif))
    assert np.abs(decoded.astype(int) - quadrants()).mean() < 6


def test_pillows_warnings_are_ignored_even_if_warnings_are_errors(tmp_path: Path):
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 99)
    path = tmp_path / "corrupt_exif.jpg"
    path.write_bytes(encode(quadrants(), "JPEG", quality=95, exif=exif))
    program = "import sys; from pathlib import Path; from alexnet_jax.data.images import open_image"
    program += "; print(open_image(Path(sys.argv[1])).shape)"
    for options in ((), ("-W", "error")):
        command = [sys.executable, *options, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("(32, 48, 3)\n", "")


def test_pillows_warnings_are_ignored_after_the_filters_were_reset():
    encoded = encode(quadrants(), "JPEG", exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 99))
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        assert module.size_of(encoded) == (48, 32)
        assert decode(encoded).shape == (32, 48, 3)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 300), (300, 2)])
def test_tiny_and_elongated_images_are_enlarged(size: tuple[int, int]):
    image = decode(encode(Image.new("RGB", size, (9, 99, 199)), "PNG"))
    assert image.shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(
        resize_center(image, 256), np.broadcast_to((9, 99, 199), (256, 256, 3))
    )


def test_the_first_of_several_frames_counts():
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(encoded), np.broadcast_to(RED, (4, 4, 3)))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_truncated_files_are_unreadable(form: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    encoded = encode(noise, form)
    with pytest.raises(UnreadableImage, match="damaged: .*truncated"):
        decode(encoded[: len(encoded) // 2])


def test_files_that_are_not_images_are_unreadable():
    with pytest.raises(UnreadableImage, match=r"the file is empty \(0 bytes\)"):
        decode(b"")
    with pytest.raises(UnreadableImage, match=r"no image format known to Pillow \(14 bytes\)"):
        decode(b"something else")
    with pytest.raises(UnreadableImage, match="floating-point"):
        decode(encode(np.zeros((2, 2), np.float32), "TIFF"))


@pytest.mark.parametrize("limit", [1000, 500])  # Pillow warns above its limit, refuses above twice
def test_decompression_bombs_are_refused(limit: int, monkeypatch: pytest.MonkeyPatch):
    encoded = encode(Image.new("RGB", (40, 40)))
    raw = module.encode(np.zeros((40, 40, 3), np.uint8), "raw")
    decode(encoded)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for bomb in (encoded, raw):
        with pytest.raises(UnreadableImage, match="suspiciously many pixels"):
            decode(bomb)


def test_bytes_damaged_anywhere_never_raise_anything_else():
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x")
    originals = [encode(image, "PNG", pnginfo=info), encode(image, "JPEG"), encode(image, "GIF")]
    originals.append(module.encode(np.asarray(image), "raw")[:40])  # mostly header
    outcomes: list[object] = []
    for original in originals:
        for _ in range(60):
            damaged = bytearray(original)
            for place in rng.integers(0, len(damaged), 4):
                damaged[place] = rng.integers(256)
            try:
                outcomes.append(decode(bytes(damaged)).shape)
            except UnreadableImage as error:
                outcomes.append(str(error))
    assert "" not in outcomes
    assert (16, 16, 3) in outcomes
    assert any(isinstance(outcome, str) for outcome in outcomes)


def test_the_real_awkward_files(real_data: Path):
    folder = real_data / "edge-cases"
    rows = list(csv.DictReader((folder / "index.csv").read_text().splitlines()))
    assert len(rows) == 21
    for row in rows:
        encoded = (folder / row["file"]).read_bytes()
        if row["format"] == "ERR":
            with pytest.raises(UnreadableImage, match="truncated"):
                decode(encoded)
            continue
        image = decode(encoded)
        with Image.open(io.BytesIO(encoded)) as stored:
            assert image.shape[:2] == ImageOps.exif_transpose(stored).size[::-1]
        assert resize_center(image, 256).shape == (256, 256, 3)
        if row["mode"] == "L":
            assert (image == image[..., :1]).all()
    cmyk, rgb = (
        decode((folder / f"pillow_pil_sample_{m}.jpg").read_bytes()) for m in ("cmyk", "rgb")
    )
    assert np.abs(cmyk.astype(int) - rgb).mean() < 10
