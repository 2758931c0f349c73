"""Which arrays of a file are a network's, whatever is wrapped around them or beside them.

A training checkpoint nests its weights (`state_dict`, `model`) beside an optimizer's state, and
DataParallel, torch.compile and Lightning put a prefix before every name. Here a *path* is all the
keys that lead to an array, joined by dots. Paths that end in the names of one scheme, and have the
same prefix before them, are one network.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from alexnet_jax.config import invalid

# torchvision: features.0.weight, OIHW; plain: conv1_w, OIHW; caffe: the same, of a caffemodel;
# tensorflow: conv1_w, HWIO, of caffe-tensorflow; theano: W_0 and W0_1, IHWO.
Format = Literal["torchvision", "plain", "caffe", "tensorflow", "theano"]

# torchvision/models/alexnet.py; the modules between them have no weights.
TORCHVISION = {
    **dict(zip(("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 6, 8, 10), strict=True)),
    **dict(zip(("fc6", "fc7", "fc8"), (1, 4, 6), strict=True)),
}
_MODULES = {
    f"{'features' if layer.startswith('conv') else 'classifier'}.{number}"
    for layer, number in TORCHVISION.items()
}
# Parts of a path that name no layer: of DataParallel, torch.compile, FSDP, and of a pickled module.
_WRAPPERS = {
    *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    *("_modules", "_parameters", "_buffers"),
}
# Words in a prefix of arrays that are like the network's, but not what training has arrived at.
_SECONDARY = {
    *("ema", "swa", "avg", "average", "averaged", "shadow", "teacher", "target", "momentum"),
    *("best", "old", "prev", "grad", "grads"),
}
_COUNTER = "n_averaged"  # of the networks in torch.optim.swa_utils.AveragedModel
_OPTIMIZER = {"optimizer", "optimizers", "optim", "opt", "momentum", "velocity", "scaler"}
_KERNEL, _BIAS = ("weight", "weights", "w", "kernel"), ("bias", "biases", "b")
_KINDS = {**dict.fromkeys(_KERNEL, "w"), **dict.fromkeys(_BIAS, "b")}
_LAYER = re.compile(r"conv[1-6]|fc[1-8]|bottleneck")
_THEANO = re.compile(r"[Wb][01]?_\d+")
_COUNTED_FROM_1 = {"fc1": "fc6", "fc2": "fc7", "fc3": "fc8"}
# The last layer and the one before it.
_HEADS: dict[Format, tuple[str, str]] = {"torchvision": ("classifier.6", "classifier.4")}
_PLAIN_HEADS = ("fc8", "fc7")
# What torch.optim calls the arrays that it keeps for each parameter.
_MOMENTS = {
    *("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg"),
    *("grad_avg", "acc_delta", "sum", "step", "mu_product", "mu", "eta", "ax", "prev", "step_size"),
}
SHOWN = 5  # names in a message
_MOST_BESIDE = 5  # arrays in a file for each one of a part of a network
_SHOWN_ARRAYS = 10  # of a file of something else
# Layers that make an entry a network; the last one often has another name.
_CONVS: dict[Format, set[str]] = {
    "torchvision": {name for name in _MODULES if name.startswith("features")},
    "plain": {f"conv{number}" for number in range(1, 6)},
}
_DENSE: dict[Format, tuple[set[str], ...]] = {
    "torchvision": ({"classifier.1", "classifier.4"},),
    "plain": ({"fc6", "fc7"}, {"fc1", "fc2", "fc3"}),
}


@dataclasses.dataclass(frozen=True)
class Selection:
    """The arrays of one network in a file."""

    format: Format
    names: dict[str, str]  # by path, the name in the format; one that the format lacks is kept
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Match:
    """How a path ends: a name of a scheme, and what is before it."""

    format: Format
    name: str
    prefix: str  # without wrappers


_Groups = dict[tuple[Format, str], dict[str, str]]  # names by path


def select(paths: Sequence[str], key: str = "") -> Selection:
    """Return the network among the arrays of a file.

    Args:
        paths: of all arrays.
        key: entry or prefix of the network to take, if there are several.

    Raises:
        ValueError: there are several networks, or none (under `key`), but some of their layers or
            an optimizer's arrays.
    """
    matches = {path: match for path in paths if (match := _match(path))}
    if key:
        matches = {
            path: match
            for path, match in matches.items()
            if f".{key}." in f".{path}" or f".{key}." in f".{match.prefix}"
        }
        if not matches:
            raise _not_under(key, paths)
    groups: _Groups = {}
    for path, match in matches.items():
        groups.setdefault((match.format, match.prefix), {})[path] = match.name
    if not key and _is_optimizer(paths, groups):
        shown = list_arrays(paths)
        raise ValueError(
            f"The file holds the state of an optimizer and no network ({shown}); name the file of "
            "the network."
        )
    if not groups:
        return _unknown_scheme(paths)
    groups = _networks(_joined(groups), paths, key)
    format, prefix = _choose(groups, key)
    names = _unambiguous(groups[format, prefix])
    if {"fc1_w", "fc2_w", "fc3_w"} <= {*names.values()} and "fc6_w" not in names.values():
        names = {
            path: _COUNTED_FROM_1.get(name[:3], name[:3]) + name[3:] if name[:2] == "fc" else name
            for path, name in names.items()
        }
    for path in paths:
        beside = _words(path) & _OPTIMIZER or path.endswith(_COUNTER)
        if path not in names and _within(path, prefix) and not beside:
            names[path] = _bare(path).removeprefix(prefix)
    return Selection(format, names, tuple(_notes(paths, names, prefix, groups)))


def no_network(names: Sequence[str]) -> ValueError:
    """Return the error for arrays that are not of an AlexNet."""
    return ValueError(
        f"The file holds no AlexNet: it has {list_arrays(names)}, and expected are conv1 to conv5 "
        "and fc6 to fc8, or torchvision's features.0 to classifier.6; name the weights of an "
        "AlexNet, with its layers under these names."
    )


def list_arrays(names: Sequence[str]) -> str:
    """Return the first few names, and how many others there are."""
    more = f" and {len(names) - _SHOWN_ARRAYS:,} more" * (len(names) > _SHOWN_ARRAYS)
    return ", ".join(names[:_SHOWN_ARRAYS]) + more


def select_all(paths: Sequence[str]) -> Selection:
    """Return all arrays under their paths, for a part of a network."""
    return Selection("torchvision", {path: path for path in paths})


def is_layer(path: str) -> bool:
    """Return whether a path ends in the name of a layer's weights in some scheme."""
    return _match(path) is not None


def find_head(
    arrays: Mapping[str, np.ndarray], format: Format, head: str = ""
) -> tuple[dict[str, np.ndarray], str]:
    """Return arrays with the last layer under the name it has in the format, and a note.

    A network that was fine-tuned often has another name for it, such as fc8_flickr. It is then the
    only matrix that is of no other layer and has as many inputs as fc7 has outputs.

    Args:
        arrays: by the names of the format.
        format: of the names.
        head: name of the last layer, if it cannot be found.

    Raises:
        ValueError: `head` is no such matrix, or several are.
    """
    usual, before = _HEADS.get(format, _PLAIN_HEADS)
    weight, bias = (".weight", ".bias") if format == "torchvision" else ("_w", "_b")
    units = np.size(arrays.get(before + bias, ()))
    heads = {
        layer: parts
        for layer, parts in _matrices(arrays, format, units).items()
        if layer == usual or layer not in {*_MODULES, *_PLAIN_HEADS, "fc6", "bottleneck"}
    }
    if head and head not in heads:
        known = ", ".join([*heads][:SHOWN]) or "none"
        rule = f"must name a layer with a matrix of {units:,} inputs and a bias ({known})"
        raise invalid("head", head, rule, "name one of these, or leave it out")
    if not head and len(heads) > 1:
        rule = f"is needed, as each of {', '.join(heads)} could be the last layer"
        raise ValueError(f"head: {rule}; add head=NAME.")
    if not heads or (not head and usual in heads):
        return dict(arrays), ""
    head = head or next(iter(heads))
    candidates = {name for parts in heads.values() for name in parts}
    rest = {name: array for name, array in arrays.items() if name not in candidates}
    kernel_name, bias_name = heads[head]
    found = {usual + weight: arrays[kernel_name], usual + bias: arrays[bias_name]}
    return {**rest, **found}, f"The last layer is {head} of the file."


def _matrices(
    arrays: Mapping[str, np.ndarray], format: Format, inputs: int
) -> dict[str, tuple[str, str]]:
    """Return the names of kernel and bias of each dense layer with that many inputs."""
    layers: dict[str, dict[str, str]] = {}
    for name in arrays:
        layer, _, kind = re.sub(r"[/_]([a-zA-Z]+)$", r".\1", name).rpartition(".")
        if kind.lower() in _KINDS:
            layers.setdefault(layer, {})[_KINDS[kind.lower()]] = name
    found = {}
    for layer, parts in layers.items():
        if "w" not in parts or "b" not in parts or arrays[parts["w"]].ndim != 2:
            continue
        shape = arrays[parts["w"]].shape
        ins, outs = shape if format == "tensorflow" else shape[::-1]
        if ins == inputs and arrays[parts["b"]].shape == (outs,):
            found[layer] = (parts["w"], parts["b"])
    return found


def _match(path: str) -> _Match | None:
    parts = _bare(re.sub(r":\d+$", "", path)).split(".")
    last = parts[-3:]

    def match(format: Format, name: str, length: int) -> _Match:
        return _Match(format, name, "".join(f"{part}." for part in parts[:-length]))

    kind = _KINDS.get(last[-1].lower())
    if kind and ".".join(last[:-1]) in _MODULES:
        return match("torchvision", f"{last[0]}.{last[1]}.{'weight' if kind == 'w' else 'bias'}", 3)
    if kind and len(last) > 1 and _LAYER.fullmatch(last[-2].lower()):
        return match("plain", f"{last[-2].lower()}_{kind}", 2)
    # A layer in a Sequential of its own: conv1.0.weight.
    if kind and len(last) > 2 and last[-2].isdecimal() and _LAYER.fullmatch(last[-3].lower()):
        return match("plain", f"{last[-3].lower()}_{kind}", 3)
    layer, _, kind = last[-1].lower().rpartition("_")
    if kind in _KINDS and _LAYER.fullmatch(layer):
        return match("plain", f"{layer}_{_KINDS[kind]}", 1)
    return match("theano", last[-1], 1) if _THEANO.fullmatch(last[-1]) else None


def _is_optimizer(paths: Sequence[str], groups: Mapping[tuple[Format, str], object]) -> bool:
    """Return whether a file has an optimizer's arrays, and no layers beside them."""
    if groups:
        return all(_words(prefix) & _OPTIMIZER for _, prefix in groups)
    kept = [path for path in paths if path.split(".")[-1] in _MOMENTS or _words(path) & _OPTIMIZER]
    return 2 * len(kept) > len(paths)


def _layers(names: Iterable[str]) -> set[str]:
    return {name[:-2] if name[-2:] in ("_w", "_b") else name.rpartition(".")[0] for name in names}


def _has_convs(format: Format, names: Mapping[str, str]) -> bool:
    return format in _CONVS and _CONVS[format] <= _layers(names.values())


def _has_dense(format: Format, names: Mapping[str, str]) -> bool:
    layers = _layers(names.values())
    return any(dense <= layers for dense in _DENSE.get(format, ()))


def _joined(groups: _Groups) -> _Groups:
    """Return the groups, with convolutions and a classifier of different prefixes in one.

    A classifier is often beside the backbone that it was put on: backbone.features, classifier.
    """
    joined = dict(groups)
    for format in _CONVS:
        primary = {
            prefix: names
            for (other, prefix), names in groups.items()
            if other == format and not _words(prefix) & (_SECONDARY | _OPTIMIZER)
        }
        convs = [prefix for prefix, names in primary.items() if _has_convs(format, names)]
        dense = [prefix for prefix, names in primary.items() if _has_dense(format, names)]
        if len(convs) != 1 or len(dense) != 1 or convs == dense:
            continue
        first, second = primary[convs[0]], primary[dense[0]]
        if not {*first.values()} & {*second.values()}:
            outer = _common_prefix(convs[0], dense[0])
            del joined[format, convs[0]], joined[format, dense[0]]
            joined[format, outer] = {**first, **second}
    return joined


def _common_prefix(first: str, second: str) -> str:
    """Return the parts that two prefixes begin with."""
    pairs = zip(first.split(".")[:-1], second.split(".")[:-1], strict=False)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return "".join(f"{part}." for part, _ in same)


def _networks(groups: _Groups, paths: Sequence[str], key: str) -> _Groups:
    """Return the groups that are networks; a residual block has a conv1 as well.

    A part of a network is one only if the file holds hardly anything else.

    Raises:
        ValueError: none is.
    """
    whole = {
        group: names
        for group, names in groups.items()
        if group[0] == "theano" or _has_convs(group[0], names) or _has_dense(group[0], names)
    }
    if whole:
        return whole
    beside = _SECONDARY | _OPTIMIZER
    primary = {group: names for group, names in groups.items() if not _words(group[1]) & beside}
    inside = [
        path
        for path in paths
        if not _words(path) & beside and (not key or f".{key}." in f".{path}")
    ]
    found = [name for names in primary.values() for name in names.values()]
    # Convolutions that batch normalization follows have no bias; an AlexNet's have one.
    no_biases = len(_layers(found)) == len(found) > 1
    if len(primary) > 1 or no_biases or len(inside) > _MOST_BESIDE * len(found):
        raise _not_under(key, paths) if key else no_network(paths)
    return groups


def _choose(groups: Mapping[tuple[Format, str], Mapping[str, str]], key: str) -> tuple[Format, str]:
    """Return the group that has most of a network, and is not an average of it or the like."""
    most = max(map(len, groups.values()))
    whole = [group for group, names in groups.items() if len(names) == most]
    primary = [group for group in whole if not _words(group[1]) & (_SECONDARY | _OPTIMIZER)]
    chosen = primary or whole
    if len(chosen) > 1:
        entries = ", ".join(_entry(prefix) for _, prefix in chosen[:SHOWN])
        value = f"{key}: is not enough" if key else "is needed"
        raise ValueError(f"key {value}, as several entries hold a network; name one of {entries}.")
    return chosen[0]


def _unambiguous(names: Mapping[str, str]) -> dict[str, str]:
    """Return the paths whose name no other path has; the others keep theirs."""
    count: dict[str, int] = {}
    for name in names.values():
        count[name] = count.get(name, 0) + 1
    return {path: name if count[name] == 1 else path for path, name in names.items()}


def _unknown_scheme(paths: Sequence[str]) -> Selection:
    """Return all arrays, without the prefix that they have in common."""
    split = [path.split(".") for path in paths]
    common = 0
    while (
        all(len(parts) > common + 2 for parts in split)
        and len({parts[common] for parts in split}) == 1
    ):
        common += 1
    names = {
        path: ".".join(part for part in parts[common:] if part not in _WRAPPERS) or path
        for path, parts in zip(paths, split, strict=True)
    }
    plain = any(name.endswith(("_w", "_b")) for name in names.values())
    return Selection("plain" if plain else "torchvision", _unambiguous(names))


def _notes(
    paths: Sequence[str],
    names: Mapping[str, str],
    prefix: str,
    groups: Mapping[tuple[Format, str], Mapping[str, str]],
) -> Iterable[str]:
    """Yield what was left in the file, where that may have been meant."""
    most = max(map(len, groups.values()))
    rivals = [
        _entry(other)
        for (_, other), found in groups.items()
        if other != prefix and 2 * len(found) > most and not _words(other) & _OPTIMIZER
    ]
    if rivals:
        yield (
            f"Taken from {_entry(prefix)} of the file; for {', '.join(rivals[:SHOWN])} use "
            f"key={rivals[0]}."
        )
    rest = [path for path in paths if path not in names and _words(path) & _OPTIMIZER == set()]
    rest = [path for path in rest if not any(_within(path, other) for _, other in groups)]
    beside = _entries(rest, names)
    if beside:
        shown = ", ".join([*beside][:SHOWN]) + (" ..." if len(beside) > SHOWN else "")
        yield f"Passed over, as it is beside the network: {shown}."


def _entries(rest: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the entries of the paths `rest` that hold none of `names`, or the path of one."""
    taken: set[str] = set()
    for name in names:
        parts = name.split(".")
        taken |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    entries: dict[str, list[str]] = {}
    for path in rest:
        parts = path.split(".")
        starts = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        entries.setdefault(
            next((start for start in starts if start not in taken), path), []
        ).append(path)
    return [paths[0] if len(paths) == 1 else entry for entry, paths in entries.items()]


def _not_under(key: str, paths: Sequence[str]) -> ValueError:
    entries = dict.fromkeys(path.partition(".")[0] for path in paths)
    shown = ", ".join([*entries][:SHOWN]) or "none"
    rule = f"must be an entry that holds a network; the file's entries are {shown}"
    return invalid("key", key, rule, "name one that does, or leave it out")


def _words(path: str) -> set[str]:
    return {*re.split(r"[./_\d]+", path.lower())}


def _bare(path: str) -> str:
    """Return a path without the parts that name no layer."""
    return ".".join(part for part in re.split(r"[./]", path) if part not in _WRAPPERS)


def _within(path: str, prefix: str) -> bool:
    return _bare(path).startswith(prefix)


def _entry(prefix: str) -> str:
    return prefix.strip("./") or "the top"
