"""Files of other programs are read array by array, and nothing in them is executed."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from alexnet_jax.weights import files, torch_files
from tests import foreign


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(shape[0]).normal(size=shape).astype(dtype)


def same(arrays, expected):
    assert list(arrays) == list(expected)
    for name in expected:
        assert arrays[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(arrays[name], expected[name], strict=True)


TORCH = [foreign.write_torch_zip, foreign.write_torch_legacy]


@pytest.mark.parametrize("write", TORCH)
def test_torch_dtypes_and_views(write, tmp_path):
    base = numbers(40)
    bfloat16 = np.array([1.0, -2.5, 3.140625], np.float32)
    upper = (bfloat16.view(np.uint32) >> 16).astype("<u2").tobytes()
    write(
        tmp_path / "a.pth",
        {
            "features.0.weight": base,
            "features.0.bias": numbers(3, dtype=np.float64),
            "half": numbers(2, 3, dtype=np.float16),
            "bfloat": (bfloat16, upper),
            "long": np.array(7),
            "transposed": {
                "of": "features.0.weight", "offset": 2, "shape": (4, 3), "strides": (1, 4)
            },
            "tied.bias": {
                "of": "features.0.bias", "offset": 1, "shape": (2,), "strides": (1,)
            },
            "empty": {"of": "half", "offset": 0, "shape": (0, 3), "strides": (3, 1)},
        },
    )  # fmt: skip
    raw = files.read(tmp_path / "a.pth")
    assert raw.format == "torchvision"
    same(
        raw.arrays,
        {
            "features.0.weight": base,
            "features.0.bias": numbers(3, dtype=np.float64),
            "half": numbers(2, 3, dtype=np.float16),
            "bfloat": bfloat16,
            "long": np.array(7),
            "transposed": base[2:14].reshape(3, 4).T,
            "tied.bias": numbers(3, dtype=np.float64)[1:],
            "empty": np.zeros((0, 3), np.float16),
        },
    )


@pytest.mark.parametrize("write", TORCH)
def test_a_checkpoint_of_data_parallel(write, tmp_path):
    # DataParallel around the whole network, or around its features alone.
    arrays = {"module.features.0.weight": numbers(4, 2), "features.module.0.bias": numbers(4)}
    write(tmp_path / "a.tar", arrays, lambda state: {"epoch": 3, "state_dict": state})
    expected = {name.replace("module.", ""): array for name, array in arrays.items()}
    same(files.read(tmp_path / "a.tar").arrays, expected)


def test_a_view_of_an_old_storage(tmp_path):
    """Before 0.4, a storage in the old container may be part of another: (key, first, elements)."""
    base = numbers(10)

    def wrap(state):
        storage = state["a.weight"].args[0]
        storage.view = ("0", 4, 6)
        return state

    foreign.write_torch_legacy(tmp_path / "a.pth", {"a.weight": base}, wrap)
    with pytest.raises(ValueError, match=r"a\.pth: a\.weight: .*; download the file again"):
        files.read(tmp_path / "a.pth")  # ten numbers from the fourth on

    def shorter(state):
        state["a.weight"].args = (state["a.weight"].args[0], 1, (2,), (2,), False, {})
        return wrap(state)

    foreign.write_torch_legacy(tmp_path / "a.pth", {"a.weight": base}, shorter)
    same(files.read(tmp_path / "a.pth").arrays, {"a.weight": base[[5, 7]]})


@pytest.mark.parametrize(
    "view",
    [
        {"offset": 1, "shape": (6,), "strides": (1,)},
        {"offset": -1, "shape": (2,), "strides": (1,)},
        {"offset": 0, "shape": (3,), "strides": (3,)},
        {"offset": 0, "shape": (3,), "strides": (-1,)},
        {"offset": 0, "shape": (2**40, 2**40), "strides": (1, 1)},
        {"offset": 0, "shape": (3, 3), "strides": (2**61, 2**61)},
        {"offset": 0, "shape": (5,), "strides": (2**62,)},
        {"offset": 0, "shape": (2,), "strides": (1, 1)},
        {"offset": 0, "shape": ("2",), "strides": (1,)},
    ],
)
@pytest.mark.parametrize("write", TORCH)
def test_a_tensor_that_exceeds_its_storage(write, view, tmp_path):
    write(tmp_path / "a.pth", {"a.weight": numbers(6), "b.weight": {"of": "a.weight", **view}})
    with pytest.raises(ValueError, match=r"a\.pth: b\.weight: .*; download the file again"):
        files.read(tmp_path / "a.pth")


@pytest.mark.parametrize("write", TORCH)
def test_what_is_not_a_state_dict(write, tmp_path):
    write(tmp_path / "a.pth", {"a.weight": numbers(6)}, lambda _: [3, {"loss": 4.0}])
    with pytest.raises(ValueError, match=r"a\.pth: .*; save model\.state_dict\(\) alone"):
        files.read(tmp_path / "a.pth")


@pytest.mark.parametrize("write", TORCH)
def test_a_truncated_torch_file(write, tmp_path):
    write(tmp_path / "a.pth", {"a.weight": numbers(50), "b.weight": numbers(9)})
    whole = (tmp_path / "a.pth").read_bytes()
    for size in range(16, len(whole), 3):
        (tmp_path / "a.pth").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.pth: "):
            files.read(tmp_path / "a.pth")


LAYERS = {"conv1": [numbers(4, 3, 2, 2), numbers(4)], "fc6": [numbers(5, 16), numbers(5)]}
NAMED = {
    "conv1_w": LAYERS["conv1"][0],
    "conv1_b": LAYERS["conv1"][1],
    "fc6_w": LAYERS["fc6"][0],
    "fc6_b": LAYERS["fc6"][1],
}


@pytest.mark.parametrize(
    "options",
    [{}, {"old": True}, {"packed": False}, {"double": True}, {"old": True, "packed": False}],
)
def test_a_caffemodel(options, tmp_path):
    (tmp_path / "a").write_bytes(foreign.caffemodel(LAYERS, name="CaffeNet", **options))
    raw = files.read(tmp_path / "a")
    assert (raw.format, raw.metadata) == ("caffe", {"name": "CaffeNet"})
    same(raw.arrays, NAMED)


@pytest.mark.parametrize("old", [False, True])
def test_a_truncated_caffemodel(old, tmp_path):
    whole = foreign.caffemodel(LAYERS, old=old)
    ends = set()
    for size in range(len(whole)):
        (tmp_path / "a.caffemodel").write_bytes(whole[:size])
        try:
            arrays = files.read(tmp_path / "a.caffemodel").arrays
        except ValueError as error:
            assert "a.caffemodel: " in str(error)  # noqa: PT017
        else:  # cut between two layers, which the format cannot detect
            ends.add(size)
            same(arrays, dict(list(NAMED.items())[: len(arrays)]))
    assert len(ends) <= 4


@pytest.mark.parametrize(
    "data",
    [
        foreign.field(100, foreign.field(7, foreign.field(5, b"1234") + foreign.field(1, 2))),
        foreign.field(100, foreign.field(7, foreign.field(5, b"123"))),
        # sides that multiply to 0, or to 1 by way of overflow
        foreign.field(100, foreign.field(7, foreign.field(7, foreign.field(1, 2**63) * 2))),
        foreign.field(
            100, foreign.field(7, foreign.field(7, foreign.field(1, 2**62) + foreign.field(1, 0)))
        ),
        foreign.field(100, foreign.field(7, foreign.field(7, foreign.field(1, 1) * 99))),
        foreign.field(100, 5),
        foreign.field(2, foreign.field(6, 1)),
        foreign.field(1, 1),
        foreign.varint(100 << 3 | 2) + foreign.varint(2**60) + b"abc",
        b"\xff" * 30,
        b"\x0b\x0c",
        b"",
        b"hello, I am a text",
    ],
)
def test_an_inconsistent_caffemodel(data, tmp_path):
    (tmp_path / "a.caffemodel").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.caffemodel: .*[.]"):
        files.read(tmp_path / "a.caffemodel")


HWIO = {"conv1": [numbers(2, 2, 3, 4), numbers(4)], "fc6": [numbers(16, 5), numbers(5)]}


@pytest.mark.parametrize("write", [foreign.write_npy_python3, foreign.write_npy_python2])
def test_a_pickled_dictionary_in_npy(write, tmp_path):
    write(tmp_path / "a.npy", HWIO)
    raw = files.read(tmp_path / "a.npy")
    assert raw.format == "tensorflow"
    same(raw.arrays, {f"{n}_{p}": a for n in HWIO for p, a in zip("wb", HWIO[n], strict=True)})
    # The hand-made bytes are what NumPy itself reads.
    loaded = np.load(tmp_path / "a.npy", allow_pickle=True, encoding="latin1").item()
    np.testing.assert_array_equal(loaded["fc6"][0], HWIO["fc6"][0])


def test_other_dictionaries_in_npy(tmp_path):
    def save(value, **options):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, np.array(value, object), **options)

    column = np.asfortranarray(numbers(3, 4).astype(">f8"))
    save({"fc6": {"biases": numbers(4), "weights": column}})
    arrays = files.read(tmp_path / "a.npy").arrays
    np.testing.assert_array_equal(arrays["fc6_w"], column)
    np.testing.assert_array_equal(arrays["fc6_b"], numbers(4))
    with (tmp_path / "a.npy").open("wb") as file:  # bytes as Python 3 writes them for Python 2
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(np.array({"fc6": [column, numbers(4)]}, object), file, protocol=2)
    np.testing.assert_array_equal(files.read(tmp_path / "a.npy").arrays["fc6_w"], column)
    for value in ({"fc6": ["text"]}, {"fc6": 3}, [1, 2], "text"):
        save(value)
        with pytest.raises(ValueError, match=r"a\.npy: .*arrays|a\.npy: .*dictionary"):
            files.read(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", numbers(3))
    with pytest.raises(ValueError, match=r"a\.npy: .*dictionary"):
        files.read(tmp_path / "a.npy")


def test_a_truncated_npy(tmp_path):
    foreign.write_npy_python2(tmp_path / "a.npy", HWIO)
    whole = (tmp_path / "a.npy").read_bytes()
    for size in range(6, len(whole), 11):
        (tmp_path / "a.npy").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.npy: "):
            files.read(tmp_path / "a.npy")


def test_a_folder_of_theano(tmp_path):
    arrays = {"W_0": numbers(3, 2, 2, 4), "b_0": numbers(4), "W0_1": numbers(2), "W1_1": numbers(5)}
    foreign.write_theano(tmp_path / "a", {"W_0": numbers(9)}, epoch=9)
    foreign.write_theano(tmp_path / "a", arrays, epoch=10)
    np.save(tmp_path / "a" / "mom_0_11.npy", numbers(2))
    np.save(tmp_path / "a" / "val_record.npy", numbers(2))
    raw = files.read(tmp_path / "a")
    assert (raw.format, raw.metadata) == ("theano", {"epoch": "10"})
    same(dict(sorted(raw.arrays.items())), dict(sorted(arrays.items())))
    with pytest.raises(ValueError, match="W_0_65.npy; name a file, or a folder"):
        files.read(tmp_path)


def test_npz_and_safetensors_by_either_name(tmp_path):
    vision = {"features.0.weight": numbers(4, 3), "features.0.bias": numbers(4)}
    np.savez(tmp_path / "plain.npz", **NAMED)
    np.savez_compressed(tmp_path / "packed.npz", **vision)
    safetensors.numpy.save_file(NAMED, tmp_path / "plain.safetensors", {"config": "x"})
    safetensors.numpy.save_file(vision, tmp_path / "vision.st")
    for name, format, arrays in [
        ("plain.npz", "plain", NAMED),
        ("packed.npz", "torchvision", vision),
        ("plain.safetensors", "plain", NAMED),
        ("vision.st", "torchvision", vision),
    ]:
        raw = files.read(tmp_path / name)
        assert raw.format == format
        same(dict(sorted(raw.arrays.items())), dict(sorted(arrays.items())))
    assert files.read(tmp_path / "plain.safetensors").metadata == {"config": "x"}


def test_safetensors_of_half_precision(tmp_path):
    """Written by hand: a header's length, the header, and the upper halves of float32."""
    values = np.array([1.0, -0.5, 2.0], np.float32)
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = b'{"conv1_b":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + data)
    same(files.read(tmp_path / "a").arrays, {"conv1_b": values})


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_is_written_is_read_again(suffix, tmp_path):
    raw = files.RawWeights(
        "plain", {**NAMED, "fc6_w": NAMED["fc6_w"].T}, {"config": "{}", "other": "ü"}
    )
    path = tmp_path / f"a{suffix}"
    files.write(path, raw)
    again = files.read(path)
    assert (again.format, again.metadata) == ("plain", raw.metadata)
    same(dict(sorted(again.arrays.items())), dict(sorted(raw.arrays.items())))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="path .*: .*; name another file, or remove it"):
        files.write(path, raw)
    with pytest.raises(
        ValueError, match=r"path .*a\.pth: .*\.safetensors or \.npz .*; try a\.safetensors"
    ):
        files.write(tmp_path / "a.pth", raw)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_truncated_files_of_arrays(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    files.write(path, files.RawWeights("plain", NAMED, {}))
    whole = path.read_bytes()
    for size in range(9, len(whole), 13):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.(npz|safetensors): "):
            files.read(path)


def test_mean_images(tmp_path):
    image = numbers(3, 5, 5)
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "b.npy", image.transpose(1, 2, 0).astype(np.float64))
    (tmp_path / "c.binaryproto").write_bytes(foreign.blob(image, old=True))
    np.savez(tmp_path / "d.npz", mean_image=image.transpose(1, 2, 0), scale=np.ones(3))
    for name in ("a.npy", "b.npy", "c.binaryproto", "d.npz"):
        mean, rgb = files.read_mean(tmp_path / name)
        assert rgb == (name == "d.npz")
        np.testing.assert_array_equal(mean, image.transpose(1, 2, 0), strict=True)
    np.save(tmp_path / "a.npy", image[0])
    with pytest.raises(ValueError, match=r"a\.npy: .*\(5, 5\); name another file"):
        files.read_mean(tmp_path / "a.npy")
    np.savez(tmp_path / "d.npz", scale=np.ones(3))
    with pytest.raises(ValueError, match=r"d\.npz: .*no mean_image; name another file"):
        files.read_mean(tmp_path / "d.npz")
    (tmp_path / "c.binaryproto").write_bytes(foreign.blob(image, old=True)[:-3])
    with pytest.raises(ValueError, match=r"c\.binaryproto: .*; download it again"):
        files.read_mean(tmp_path / "c.binaryproto")


def hostile_files(folder, victim):
    """Yield the files of each format that has a pickle, with a call that would create `victim`."""
    evil = foreign.Hostile(victim)

    def spoil(state):
        return {**state, "evil": evil}

    foreign.write_torch_zip(folder / "zip.pth", {"a.weight": numbers(3)}, spoil)
    yield folder / "zip.pth", "open"
    foreign.write_torch_legacy(folder / "legacy.pth", {"a.weight": numbers(3)}, spoil)
    yield folder / "legacy.pth", "open"
    foreign.write_npy_python3(folder / "a.npy", {"conv1": [evil, numbers(2)]})
    yield folder / "a.npy", "open"
    (folder / "bare.pth").write_bytes(pickle.dumps(evil))
    yield folder / "bare.pth", "open"
    command = b"cposix\nsystem\n(U" + bytes([len(f"touch {victim}")]) + f"touch {victim}".encode()
    (folder / "system.pth").write_bytes(b"\x80\x02" + command + b"tR.")
    yield folder / "system.pth", "posix.system"
    foreign.write_npy_python2(folder / "old.npy", HWIO, b"\x80\x02" + command + b"tR0")
    yield folder / "old.npy", "posix.system"
    # Names with a dot lead from what is admitted to what is not.
    dotted = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    (folder / "dotted.pth").write_bytes(dotted)
    yield folder / "dotted.pth", "collections.OrderedDict.__init__"
    np.savez(folder / "a.npz", conv1_w=np.array([evil], object), allow_pickle=True)
    yield folder / "a.npz", "conv1_w"
    foreign.write_theano(folder / "theano", {"W_0": np.array([evil], object)})
    yield folder / "theano", "W_0_65.npy"


def test_nothing_in_a_pickle_is_executed(tmp_path):
    victim = tmp_path / "victim"
    seen = 0
    for path, name in hostile_files(tmp_path, victim):
        with pytest.raises(
            ValueError, match="; save the arrays alone|; download it again"
        ) as refusal:
            files.read(path)
        message = str(refusal.value)
        assert f"{name} is not an array" in message or "holds Python objects" in message, path
        assert name in str(refusal.value)
        assert not victim.exists()
        seen += 1
    assert seen == 9
    # The files are as harmful as they look: an ordinary reader creates the file.
    pickle.loads((tmp_path / "bare.pth").read_bytes()).close()
    assert victim.exists()


def test_a_pickle_cannot_change_what_its_names_stand_for(tmp_path):
    """BUILD sets attributes: only on objects that the pickle made."""
    for name in (b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict"):
        state = b"}U\x05_callK\x01s"
        for build in (b"b", None):
            program = b"c" + name + b"\n" + (state + b"b" if build else b"N" + state + b"\x86b")
            (tmp_path / "a.pth").write_bytes(b"\x80\x02" + program + b".")
            with pytest.raises(ValueError, match=r"a\.pth: its pickle cannot be read"):
                files.read(tmp_path / "a.pth")
    foreign.write_torch_legacy(tmp_path / "b.pth", {"a.weight": numbers(3)})
    same(files.read(tmp_path / "b.pth").arrays, {"a.weight": numbers(3)})


def test_zip_archives_that_are_not_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.zip: .*readme\.txt.*; unpack it"):
        files.read(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
    with pytest.raises(ValueError, match=r"b\.pth: a/data\.pkl is compressed"):
        files.read(tmp_path / "b.pth")
    big = io.BytesIO()
    with zipfile.ZipFile(big, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", "big")
    (tmp_path / "c.pth").write_bytes(big.getvalue())
    with pytest.raises(ValueError, match=r"c\.pth: .*; save it on a little-endian machine"):
        files.read(tmp_path / "c.pth")


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module, function):
    return f"c{module}\n{function}\n".encode()


# One thing twice, that twice, and so on: 2**60 things in 300 bytes.
TUPLES = b"K\x01" + b"2\x86" * 60
LISTS = b"]K\x01a" + b"q\x01](h\x01h\x01e" * 60
TENSOR = name("torch._utils", "_rebuild_tensor_v2")
STORAGE = (
    b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x06tQ"
)


def tensor(storage=STORAGE, shape=b"K\x06\x85", strides=b"K\x01\x85"):
    return b"}" + text("a") + TENSOR + b"(" + storage + b"K\x00" + shape + strides + b"tRs"


PROGRAMS = {
    "a table as long as a number": b"K\x01r\xff\xff\xff\x7f0" + tensor() + b"a",
    "the same as text": b"K\x01p2000000000\n0" + tensor() + b"a",
    "a key of tuples": b"}" + TUPLES + b"K\x01s",
    "a deep key": b"}K\x01" + b"\x85" * 500_000 + b"K\x01s",
    "a set": b"(" + TUPLES + b"\x91",
    "zeros": b"\x96" + struct.pack("<Q", 2**40),
    "a method hidden": name("collections", "OrderedDict") + b")R}" + text("get") + b"K\x01sbK\x01a",
    "an object": name("collections", "OrderedDict") + b")\x81",
    "an instance": b"(icollections\nOrderedDict\n",
    "an extension": b"\x82\x01",
    "a key of a storage": tensor(STORAGE.replace(text("0"), LISTS)),
    "sides that are lists": tensor(shape=LISTS + LISTS + b"\x86", strides=b"K\x01K\x01\x86"),
    "strides of texts": tensor(shape=integer(2**40) + b"\x85", strides=text("abc") + b"\x85"),
    "strides of nothing": tensor(shape=integer(2**40) + b"\x85", strides=b"K\x00\x85"),
    "sides without end": tensor(
        shape=b"(" + integer(2**1000) * 20_000 + b"t", strides=b"(" + b"K\x01" * 20_000 + b"t"
    ),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_pickle_takes_no_more_memory_than_its_size(program, tmp_path):
    """Each would hang, crash or take gigabytes in an unpickler that executes it."""
    start = b"".join(
        pickle.dumps(value, protocol=2) for value in (torch_files.MAGIC, torch_files.PROTOCOL, {})
    )
    keys = pickle.dumps(["0"], protocol=2)
    data = struct.pack("<q", 6) + numbers(6).tobytes()
    (tmp_path / "a.pth").write_bytes(start + b"\x80\x02" + program + b"." + keys + data)
    with pytest.raises(ValueError, match=r"a\.pth: .*[.]$"):
        files.read(tmp_path / "a.pth")


def array_in_pickle(shape, raw, dtype=None):
    start = name("numpy.core.multiarray", "_reconstruct") + b"(" + name("numpy", "ndarray")
    start += b"K\x00\x85" + text("b") + b"tR"
    dtype = text("u1") if dtype is None else dtype
    dtype = name("numpy", "dtype") + b"(" + dtype + b"K\x00K\x01tR"
    return start + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


@pytest.mark.parametrize(
    "arrays",
    [
        array_in_pickle(integer(2**40) + b"\x85", integer(2**40)),  # bytes(2**40)
        array_in_pickle(LISTS + LISTS + b"\x86", text("ab")),
        array_in_pickle(b"K\x02\x85", text("ab"), LISTS),
        # one text, a thousand arrays
        text("a" * 9999) + b"q\x020" + array_in_pickle(integer(9999) + b"\x85", b"h\x02") * 1000,
    ],
    ids=["an integer for bytes", "lists for sides", "a list for a dtype", "a text again and again"],
)
def test_a_pickled_dictionary_takes_no_more_memory_than_its_size(arrays, tmp_path):
    layers = b"}" + text("conv1") + b"(" + arrays + b"ls"
    whole = array_in_pickle(b")", b"(" + layers + b"l", text("O8"))
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\x80\x02" + whole + b".")
    with pytest.raises(ValueError, match=r"a\.npy: its pickle cannot be read"):
        files.read(tmp_path / "a.npy")


def npy(header):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"


@pytest.mark.parametrize(
    "header",
    [
        "-" * 9000 + "1",
        "(" * 9000,
        "{'descr': '''",
        "{[]: 1}",
        "{1: 1, 'a': 2}",
        "{'descr': (), 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000000,)}",
        "{'descr': open('victim', 'w'), 'fortran_order': False, 'shape': ()}",
    ],
)
def test_a_hostile_header_of_npy(header, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(npy(header))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("conv1_w.npy", npy(header))
    (tmp_path / "theano").mkdir()
    (tmp_path / "theano" / "W_0_65.npy").write_bytes(npy(header))
    for path, message in [("a.npy", "a.npy: "), ("a.npz", "conv1_w: "), ("theano", "W_0_65.npy: ")]:
        with pytest.raises(ValueError, match=message):
            files.read(tmp_path / path)
    assert not (tmp_path / "victim").exists()


def encrypted(data):
    data = bytearray(data)
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + flags] |= 1
    return bytes(data)


def test_hostile_zip_archives(tmp_path):
    np.savez(tmp_path / "a.npz", conv1_w=numbers(3))
    (tmp_path / "a.npz").write_bytes(encrypted((tmp_path / "a.npz").read_bytes()))
    foreign.write_torch_zip(tmp_path / "b.pth", {"a.weight": numbers(3)})
    (tmp_path / "b.pth").write_bytes(encrypted((tmp_path / "b.pth").read_bytes()))
    for path in ("a.npz", "b.pth"):
        with pytest.raises(ValueError, match=f"{path}: .*encrypted"):
            files.read(tmp_path / path)
    np.savez_compressed(tmp_path / "bomb.npz", conv1_w=np.zeros(10**7, np.float32))
    with pytest.raises(ValueError, match=r"bomb.npz: .*unpacked it is 40,000,"):
        files.read(tmp_path / "bomb.npz")
    for metadata in ("3", "[1]", "[" * 100_000, "{"):
        np.savez(tmp_path / "c.npz", conv1_w=numbers(3), metadata=np.array(metadata))
        with pytest.raises(ValueError, match=r"c\.npz: metadata: .*; download it again"):
            files.read(tmp_path / "c.npz")


def test_what_is_not_a_file(tmp_path):
    folder = tmp_path / "theano"
    folder.mkdir()
    array = folder / "W_0_65.npy"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: .*; copy it to a file"):
        files.read(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: .*; copy it to a file"):
        files.read_mean(tmp_path / "pipe")
    for target in ("/dev/zero", tmp_path / "pipe", tmp_path / "nowhere", folder):
        array.symlink_to(target)
        with pytest.raises(ValueError, match=r"W_0_65\.npy: .*regular file.*; download it again"):
            files.read(folder)
        array.unlink()
    np.savez(tmp_path / "a.npz", conv1_w=numbers(3))
    (tmp_path / "a.npz").rename(array)
    with pytest.raises(ValueError, match=r"W_0_65\.npy: .*; download it again"):
        files.read(folder)


def test_safetensors_of_numbers_that_numpy_lacks(tmp_path):
    header = b'{"conv1_b":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"a")
    with pytest.raises(ValueError, match=r"a: conv1_b .*F8_E4M3; save it as float32"):
        files.read(tmp_path / "a")


def test_a_blob_with_millions_of_sides(tmp_path):
    sides = foreign.field(7, foreign.field(1, b"\x01" * 10**6))
    (tmp_path / "a").write_bytes(foreign.field(100, foreign.field(7, sides)))
    with pytest.raises(ValueError, match="more than 32 sides.*; .*download it again"):
        files.read(tmp_path / "a")
