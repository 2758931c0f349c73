"""Files as PyTorch, Caffe, caffe-tensorflow and theano_alexnet write them, without any of those."""

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

TORCH_STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long"}


class Hostile:
    """When pickled, a call that creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")  # builtins.open, or io.open


class Reference:
    """A storage: the reference in the pickle of a torch file, and the bytes next to it."""

    def __init__(self, kind, key, data, elements, view=None):
        self.kind, self.key, self.data = kind, key, data
        self.elements, self.view = elements, view


class Call:
    """When pickled, a call of a function that need not exist."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@contextlib.contextmanager
def fake_functions(*names):
    """Yield functions under names such as torch._utils._rebuild_tensor_v2, pickled by name."""
    modules, functions = {}, {}
    for dotted in names:
        module, _, name = dotted.rpartition(".")
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = module, name
        for parent in (module, module.partition(".")[0]):
            modules.setdefault(parent, types.ModuleType(parent))
        setattr(modules[module], name, function)
        functions[dotted] = function
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield functions
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


class TorchPickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, Reference):
            return None
        pid = ("storage", obj.kind, obj.key, "cpu", obj.elements)
        return pid if obj.view is None else (*pid, obj.view or None)


def torch_pickle(arrays, legacy, wrap=lambda state: state):
    """Return the pickle of a state_dict, and its storages.

    A value is an array, a pair (array, bfloat16 bytes) or a triple (name of another value's
    storage, offset, strides) with a shape.
    """
    storages, kinds = {}, {}
    rebuild, parameter = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
    types_of_storage = [f"torch.{name}Storage" for name in (*TORCH_STORAGES.values(), "BFloat16")]
    with fake_functions(rebuild, parameter, *types_of_storage) as functions:
        state = collections.OrderedDict()
        for number, (name, value) in enumerate(arrays.items()):
            if isinstance(value, dict):  # a view
                storage, shape, strides = storages[value["of"]], value["shape"], value["strides"]
                offset = value["offset"]
            else:
                bfloat16 = isinstance(value, tuple)
                array, data = value if bfloat16 else (value, value.tobytes())
                kind = "BFloat16" if bfloat16 else TORCH_STORAGES[str(array.dtype)]
                view = {} if legacy else None  # {}: the field exists and is None
                function = functions[f"torch.{kind}Storage"]
                storage = Reference(function, str(number), data, array.size, view)
                storages[name], kinds[name] = storage, kind
                offset, shape = 0, array.shape
                strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
            hooks = collections.OrderedDict()
            tensor = Call(functions[rebuild], storage, offset, shape, strides, False, hooks)
            if name.endswith("bias"):
                tensor = Call(functions[parameter], tensor, True, hooks)
            state[name] = tensor
        # nn.Module.state_dict() has one.
        vars(state)["_metadata"] = {"": {"version": 1}}
        file = io.BytesIO()
        TorchPickler(file, protocol=2).dump(wrap(state))
    return file.getvalue(), list(storages.values())


def write_torch_zip(path, arrays, wrap=lambda state: state):
    pickled, storages = torch_pickle(arrays, legacy=False, wrap=wrap)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.data)
        archive.writestr("archive/version", "3\n")


def write_torch_legacy(path, arrays, wrap=lambda state: state):
    pickled, storages = torch_pickle(arrays, legacy=True, wrap=wrap)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(value, file, protocol=2)
        file.write(pickled)
        pickle.dump([storage.key for storage in reversed(storages)], file, protocol=2)
        for storage in reversed(storages):
            file.write(struct.pack("<q", storage.elements) + storage.data)


def varint(value):
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def field(number, value):
    """Encode an integer, a string, a message or, as four bytes, a float."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, *, old=False, packed=True, double=False):
    array = np.asarray(array, "<f8" if double else "<f4")
    if double:
        data = field(8, array.tobytes())
    elif packed:
        data = field(5, array.tobytes())
    else:
        data = b"".join(field(5, float(value)) for value in array.ravel())
    if old:
        sides = (1,) * (4 - array.ndim) + array.shape
        return b"".join(field(1 + i, side) for i, side in enumerate(sides)) + data
    dims = b"".join(map(varint, array.shape))
    return data + field(7, field(1, dims))


def caffemodel(layers, *, name="AlexNet", old=False, **options):
    """Encode a NetParameter with layers {name: [blob, ...]}, between layers without weights."""
    data = field(1, name) + field(3, "data") + field(4, 10)
    for layer, blobs in layers.items():
        encoded = [blob(array, old=old, **options) for array in blobs]
        if old:  # V1LayerParameter: bottom 2, top 3, name 4, type 5, blobs 6
            message = field(2, "below") + field(3, layer) + field(4, layer) + field(5, 4)
            data += field(2, message + b"".join(field(6, item) for item in encoded))
            data += field(2, field(4, f"relu of {layer}") + field(5, 18))
        else:  # LayerParameter: name 1, type 2, blobs 7, convolution_param 106
            message = field(1, layer) + field(2, "Convolution") + field(106, field(1, 96))
            data += field(100, message + b"".join(field(7, item) for item in encoded))
            data += field(100, field(1, f"relu of {layer}") + field(2, "ReLU"))
    return data


def write_npy_python3(path, layers):
    """Write a dictionary {layer: [W, b]} as np.save does today."""
    with path.open("wb") as file:
        np.save(file, np.array(layers, object), allow_pickle=True)


def write_npy_python2(path, layers, protocol_header=b"\x80\x02"):
    """Write a dictionary {layer: [W, b]} as Python 2 did, where str and bytes are one type."""

    def text(value):
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    def integer(value):
        return b"J" + struct.pack("<i", value)

    def array(shape, dtype, order, fortran, raw):
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85"
        flags = 63 if dtype.startswith(b"O") else 0
        dtype = b"cnumpy\ndtype\n" + text(dtype) + integer(0) + integer(1) + b"\x87R"
        dtype += b"(" + integer(3) + text(order) + b"NNN" + integer(-1) * 2 + integer(flags) + b"tb"
        sides = b"(" + b"".join(map(integer, shape)) + b"t"
        state = b"(" + integer(1) + sides + dtype + fortran + raw + b"tb"
        return start + text(b"b") + b"\x87R" + state

    def numbers(value):
        raw = np.asarray(value, "<f4").tobytes()
        raw = b"T" + struct.pack("<i", len(raw)) + raw  # BINSTRING
        return array(np.shape(value), b"f4", b"<", b"\x89", raw)

    items = b"".join(
        text(name.encode()) + b"]" + b"(" + b"".join(map(numbers, blobs)) + b"e"
        for name, blobs in layers.items()
    )
    dictionary = b"}(" + items + b"u"
    whole = array((), b"O8", b"|", b"\x89", b"](" + dictionary + b"e")
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(protocol_header + whole + b".")


def write_theano(folder, arrays, epoch=65):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}_{epoch}.npy", array)
