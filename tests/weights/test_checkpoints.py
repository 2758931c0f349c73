"""Weights in a training checkpoint are found, whatever is wrapped around them or beside them."""

import json

import numpy as np
import pytest
import safetensors.numpy

from alexnet_jax.weights import files
from alexnet_jax.weights.import_plan import plan_import
from tests import foreign

TORCH = [foreign.write_torch_zip, foreign.write_torch_legacy]
TINY = {"model.width": 0.03, "data.image_size": 112, "data.crop": 99}
UNITS, CLASSES = 122, 7


def vision(classes=CLASSES, seed=0):
    """Return the arrays of torchvision's network at a thirtieth of its width."""
    rng = np.random.default_rng(seed)
    sizes = {0: (2, 3, 11), 3: (6, 2, 5), 6: (12, 6, 3), 8: (8, 12, 3), 10: (8, 8, 3)}
    shapes = {f"features.{i}": (o, n, k, k) for i, (o, n, k) in sizes.items()}
    shapes |= {"classifier.1": (UNITS, 32), "classifier.4": (UNITS, UNITS)}
    shapes |= {"classifier.6": (classes, UNITS)}
    return {
        f"{name}.{kind}": rng.normal(size=shape if kind == "weight" else shape[:1]).astype("f4")
        for name, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def caffe(head="fc8", classes=CLASSES):
    """Return blobs of Caffe's network at a thirtieth of its width."""
    rng = np.random.default_rng(1)
    shapes = {"conv1": (2, 3, 11, 11), "conv2": (8, 1, 5, 5), "conv3": (12, 8, 3, 3)}
    shapes |= {"conv4": (12, 6, 3, 3), "conv5": (8, 6, 3, 3), "fc6": (UNITS, 32)}
    shapes |= {"fc7": (UNITS, UNITS), head: (classes, UNITS)}
    return {
        layer: [rng.normal(size=s).astype("f4"), rng.normal(size=s[:1]).astype("f4")]
        for layer, s in shapes.items()
    }


def check(path, expected, **options):
    """Check that a file's network is `expected`, and that it is one that can be imported."""
    raw = files.read(path, **options)
    assert sorted(raw.arrays) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(raw.arrays[name], array)
    plan_import(raw, preset="" if raw.format == "torchvision" else "bvlc_alexnet", fields=TINY)
    return raw


def prefixed(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "net", "network"])
@pytest.mark.parametrize("write", TORCH)
def test_a_state_dict_beside_an_optimizers(write, entry, tmp_path):
    arrays = vision() | {"momentum": np.ones(3, np.float32)}

    def wrap(state):
        momentum = state.pop("momentum")
        buffers = {0: {"momentum_buffer": momentum, "step": momentum}}
        optimizer = {"state": buffers, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
        return {"epoch": 3, entry: state, "optimizer_state_dict": optimizer, "arch": "alexnet"}

    write(tmp_path / "a.pth", arrays, wrap)
    check(tmp_path / "a.pth", vision())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"hyper_parameters": {"lr": 0.1}, "state_dict": prefixed("model.", state)},
        lambda state: {"params": {"net": {"module": state}}},
        lambda state: prefixed("_orig_mod.module.", state),
        lambda state: (state, {"state": {}, "param_groups": []}),
        lambda state: {"epoch": 1} | state,
        lambda state: {"model": {"_modules": {"features": {"_modules": {}}}}, "state": state},
        lambda state: {"model": state, "state_dict": state},
        lambda state: prefixed("module.", state) | {"n_averaged": state["features.0.bias"]},
    ],
    ids=[
        "lightning",
        "nested",
        "compiled",
        "a tuple",
        "beside",
        "empty",
        "twice the same",
        "averaged",
    ],
)
def test_other_wrappers(wrap, tmp_path):
    foreign.write_torch_zip(tmp_path / "a.pth", vision(), wrap)
    check(tmp_path / "a.pth", vision())


def test_data_parallel_around_the_features_alone(tmp_path):
    """As in the first version of the ImageNet example of PyTorch."""
    arrays = {name.replace("features.", "features.module."): a for name, a in vision().items()}
    foreign.write_torch_zip(tmp_path / "a.pth", arrays, lambda state: {"state_dict": state})
    check(tmp_path / "a.pth", vision())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.backbone.", "params/"])
def test_prefixes_in_every_format(prefix, tmp_path):
    arrays = prefixed(prefix, vision())
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", vision())
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    check(tmp_path / "a.npz", vision())


def test_objects_that_are_no_arrays_are_passed_over_and_not_made(tmp_path):
    names = ("argparse.Namespace", "numpy._core.multiarray.scalar", "trainer.Phase", "pathlib.Path")
    with foreign.fake_functions(*names) as functions:
        calls = [foreign.Call(function, "x") for function in functions.values()]
        foreign.write_torch_zip(
            tmp_path / "a.pth",
            vision(),
            lambda state: {"state_dict": state, "args": calls[0], "best_acc1": calls[1:], 5: 6},
        )
    check(tmp_path / "a.pth", vision())


def test_a_checkpoint_with_a_hostile_entry_is_refused(tmp_path):
    """Nothing would be executed, but a file like this is no one's training."""
    evil = foreign.Hostile(tmp_path / "victim")
    foreign.write_torch_zip(tmp_path / "a.pth", vision(), lambda s: {"model": s, "x": evil})
    with pytest.raises(ValueError, match="open is not an array"):
        files.read(tmp_path / "a.pth")
    assert not (tmp_path / "victim").exists()


def test_a_pickled_object_in_the_place_of_an_array_is_named(tmp_path):
    with foreign.fake_functions("torch.ao.quantize") as functions:
        quantized = foreign.Call(functions["torch.ao.quantize"], 1)
        for wrap in (
            lambda s: {**s, "features.0.weight": quantized},
            lambda s: dict.fromkeys(s, quantized),
        ):
            foreign.write_torch_zip(tmp_path / "a.pth", vision(), wrap)
            with pytest.raises(
                ValueError, match=r"features\.0\.weight .*quantize.*; save it as one of float32"
            ):
                files.read(tmp_path / "a.pth")
    foreign.write_torch_zip(tmp_path / "a.pth", vision(), lambda s: s["features.0.weight"])
    with pytest.raises(ValueError, match=r"a\.pth: .*; save model\.state_dict\(\)"):
        files.read(tmp_path / "a.pth")


class Module:
    """Pickled as a whole, with its state, as torch.save(model) does."""

    def __init__(self, **state):
        self.__dict__ |= state


def test_a_whole_pickled_module(tmp_path):
    def wrap(state):
        parts = {"features": {}, "classifier": {}}
        for name in vision():
            part, number, kind = name.split(".")
            layer = parts[part].setdefault(number, Module(_parameters={}))
            vars(layer)["_parameters"][kind] = state[name]
        modules = {part: Module(_modules=layers) for part, layers in parts.items()}
        return {"model": Module(training=True, _modules=modules), "epoch": 1}

    foreign.write_torch_zip(tmp_path / "a.pth", vision(), wrap)
    check(tmp_path / "a.pth", vision())


def test_an_average_beside_the_network(tmp_path):
    average = prefixed("ema.", vision(seed=9))

    def wrap(state):
        ema = {name: state.pop(name) for name in average}
        return {"model": state, "state_dict_ema": {n.removeprefix("ema."): ema[n] for n in ema}}

    foreign.write_torch_zip(tmp_path / "a.pth", vision() | average, wrap)
    raw = check(tmp_path / "a.pth", vision())
    assert "key=state_dict_ema" in raw.notes[0]
    check(tmp_path / "a.pth", vision(seed=9), key="state_dict_ema")
    with pytest.raises(ValueError, match="key teacher: .*model, state_dict_ema; name one"):
        files.read(tmp_path / "a.pth", key="teacher")


def test_two_entries_of_one_name(tmp_path):
    foreign.write_torch_zip(
        tmp_path / "a.pth",
        vision(),
        lambda s: {"model": {**s}, "model.features.0": {"weight": s["features.3.weight"]}},
    )
    with pytest.raises(ValueError, match=r"two entries are called model\.features\.0\.weight"):
        files.read(tmp_path / "a.pth")


def test_two_networks_are_not_chosen_between(tmp_path):
    both = prefixed("a.", vision()) | prefixed("b.", vision(seed=9))
    safetensors.numpy.save_file(both, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="key is needed.*; name one of a, b"):
        files.read(tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", vision(seed=9), key="b")


def blocks():
    """Return arrays of a network of residual blocks, whose convolutions have numbers as well."""
    arrays = {"conv1.weight": np.ones((2, 3, 7, 7), "f4"), "fc.bias": np.ones(CLASSES, "f4")}
    for stage in (1, 2):
        for number in (1, 2, 3):
            arrays[f"layer{stage}.0.conv{number}.weight"] = np.ones((2, 2, 3, 3), "f4")
            arrays[f"layer{stage}.0.bn{number}.weight"] = np.ones(2, "f4")
    return arrays


@pytest.mark.parametrize("prefix", ["", "model."])
def test_blocks_that_have_a_conv1_are_no_networks(prefix, tmp_path):
    safetensors.numpy.save_file(prefixed(prefix, blocks()), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"no AlexNet: .*conv1.* more, .*features\.0") as refused:
        files.read(tmp_path / "a.safetensors")
    assert "key" not in str(refused.value)
    with pytest.raises(ValueError, match=r"key layer1\.0: must be an entry that holds a network"):
        files.read(tmp_path / "a.safetensors", key="layer1.0")


def test_an_alexnet_beside_residual_blocks(tmp_path):
    arrays = prefixed("other.", blocks()) | prefixed("model.", vision())
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", vision())


@pytest.mark.parametrize("entry", ["", "state_dict."])
def test_what_is_passed_over_is_named_and_not_the_network(entry, tmp_path):
    arrays = prefixed(f"{entry}net.", vision()) | {f"{entry}criterion.weight": np.ones(3, "f4")}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    (note,) = check(tmp_path / "a.safetensors", vision()).notes
    assert note.endswith(f"beside the network: {entry}criterion.weight.")


@pytest.mark.parametrize(
    ("features", "classifier"),
    [("backbone.", ""), ("", "head."), ("model.backbone.", "model."), ("encoder.", "head.")],
)
def test_features_and_classifier_under_different_prefixes(features, classifier, tmp_path):
    arrays = {
        (features if name.startswith("features") else classifier) + name: array
        for name, array in vision().items()
    }
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", vision())
    arrays[f"{features}features.1.running_mean"] = np.ones(2, "f4")
    safetensors.numpy.save_file(arrays, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"features\.1\.running_mean is not of this network"):
        plan_import(files.read(tmp_path / "b.safetensors"), fields=TINY)


@pytest.mark.parametrize("ending", [(".weight", ".bias"), ("_weight", "_bias"), (".0.W", ".0.b")])
def test_layers_by_their_names_in_pytorch(ending, tmp_path):
    arrays = {
        f"{n}{e}": a for n, pair in caffe().items() for e, a in zip(ending, pair, strict=True)
    }
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    expected = {
        f"{n}_{e}": a for n, pair in caffe().items() for e, a in zip("wb", pair, strict=True)
    }
    raw = check(tmp_path / "a.safetensors", expected)
    with pytest.raises(ValueError, match="preset: .*; add preset=NAME"):
        plan_import(raw, fields=TINY)


@pytest.mark.parametrize("head", ["classifier.6.1", "fc", "last_linear"])
def test_a_last_layer_of_another_name(head, tmp_path):
    arrays = {name.replace("classifier.6", head): a for name, a in vision().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    raw = check(tmp_path / "a.safetensors", vision())
    assert head in raw.notes[-1]
    arrays |= {"aux.weight": np.ones((3, UNITS), "f4"), "aux.bias": np.ones(3, "f4")}
    safetensors.numpy.save_file(arrays, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"head: .*aux.*; add head=NAME"):
        files.read(tmp_path / "b.safetensors")
    # Neither is chosen where one of them has the usual name.
    usual = vision() | {name: arrays[name] for name in ("aux.weight", "aux.bias")}
    safetensors.numpy.save_file(usual, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match=r"head: .*classifier\.6.*aux|head: .*aux.*classifier\.6"):
        files.read(tmp_path / "c.safetensors")
    check(tmp_path / "c.safetensors", vision(), head="classifier.6")
    raw = files.read(tmp_path / "b.safetensors", head="aux")
    assert raw.arrays["classifier.6.bias"].shape == (3,)
    with pytest.raises(ValueError, match=rf"head fc9: .*{head}"):
        files.read(tmp_path / "b.safetensors", head="fc9")


def test_a_caffemodel_that_was_fine_tuned(tmp_path):
    data = foreign.caffemodel(caffe("fc8_flickr"), name="FlickrStyleCaffeNet")
    (tmp_path / "a.caffemodel").write_bytes(data)
    raw = files.read(tmp_path / "a.caffemodel")
    assert raw.arrays["fc8_b"].shape == (CLASSES,)
    assert "fc8_flickr" in raw.notes[0]
    plan = plan_import(raw, fields=TINY)
    assert plan.config.model.op_order == "pool_first"
    (assumed,) = (note for note in plan.notes if note.startswith("Assumed"))
    assert "preset=caffenet" in assumed
    assert "preset=bvlc_alexnet" in assumed


def test_blobs_of_nvcaffe(tmp_path):
    array = caffe()["conv1"][0]
    dims = foreign.field(7, foreign.field(1, b"".join(map(foreign.varint, array.shape))))
    for number, dtype in {0: "<f8", 1: "<f4", 2: "<f2"}.items():
        raw_data = foreign.field(10, number) + foreign.field(12, array.astype(dtype).tobytes())
        layer = foreign.field(1, "conv1") + foreign.field(7, dims + raw_data)
        (tmp_path / "a").write_bytes(foreign.field(100, layer))
        result = files.read(tmp_path / "a").arrays["conv1_w"]
        np.testing.assert_array_equal(result, array.astype(dtype).astype("f4"), strict=True)
    integers = foreign.field(10, 3) + foreign.field(12, array.tobytes())
    (tmp_path / "a").write_bytes(foreign.field(100, foreign.field(7, dims + integers)))
    with pytest.raises(ValueError, match="raw_data is of type 3"):
        files.read(tmp_path / "a")


def test_npy_with_bytes_for_keys(tmp_path):
    layers = {
        n: [a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T, b] for n, (a, b) in caffe().items()
    }
    foreign.write_npy_python3(tmp_path / "a.npy", {n.encode(): v for n, v in layers.items()})
    raw = files.read(tmp_path / "a.npy")
    foreign.write_npy_python3(tmp_path / "b.npy", layers)
    expected = files.read(tmp_path / "b.npy").arrays
    assert list(raw.arrays) == list(expected)
    plan_import(raw, fields=TINY)
    with (tmp_path / "c.npz").open("wb") as file:  # the same layout under plain names
        np.savez(file, allow_pickle=False, **expected)
    assert files.read(tmp_path / "c.npz").format == "tensorflow"


def write_shards(folder, arrays, names=("model-00001-of-00002", "model-00002-of-00002")):
    keys, index = list(arrays), {}
    for name, part in zip(names, (keys[:9], keys[9:]), strict=True):
        file = f"{name}.safetensors"
        safetensors.numpy.save_file({key: arrays[key] for key in part}, folder / file)
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def test_shards(tmp_path):
    write_shards(tmp_path, prefixed("model.", vision()))
    for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors", "."):
        check(tmp_path / name, vision())
    (tmp_path / "model.safetensors.index.json").unlink()
    check(tmp_path, vision())
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="00002-of-00002.*2 parts.*model-00001.*; copy all"):
        files.read(tmp_path / "model-00002-of-00002.safetensors")
    (tmp_path / "x.index.json").write_text('{"weight_map": {"a": "../../x.safetensors"}}')
    with pytest.raises(ValueError, match=r"x\.index\.json: must name files next to it"):
        files.read(tmp_path / "x.index.json")


def test_a_folder_of_one_file_and_of_several(tmp_path):
    safetensors.numpy.save_file(vision(), tmp_path / "a.safetensors")
    check(tmp_path, vision())
    safetensors.numpy.save_file(vision(), tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors, b\.safetensors.*; name one"):
        files.read(tmp_path)
