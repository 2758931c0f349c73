"""Which folders are the splits, and which the classes: decided here for every command.

People have `train/` and `val/`, or `Training` and `Testing`, or `seg_train` and `seg_test`, in the
folder that they name or in one inside it, with images in class folders or in one folder with a
table. What cannot be told is refused; what was taken for what is said.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.config import invalid
from alexnet_jax.data.class_folders import check_classes
from alexnet_jax.data.class_names import ClassNames, normalize
from alexnet_jax.data.folders import PassedOver, Tree, some
from alexnet_jax.data.label_tables import (
    Labels,
    find_tables,
    labels_from_devkit,
    labels_from_tables,
)
from alexnet_jax.data.sources import Folder, ImageFiles, loose_images
from alexnet_jax.data.split_names import NEUTRAL, split_and_rest, split_of

# Folders that lie beside the one with the images, if they hold none.
_COMPANIONS = frozenset(
    ("annotation", "annotations", "labels", "imagesets", "metadata", "docs", "json", "csv", "xml")
)
MAX_NESTED = 6  # folders that hold nothing but one folder


class OpenedFolders(NamedTuple):
    """The images below a folder, by split."""

    splits: dict[str, ImageFiles]  # "train", perhaps "validation" and "test"
    notes: tuple[str, ...]  # what was taken for what, and what was passed over


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the folders below a root were taken for."""

    root: str  # as it was named
    base: str  # the folder in it that holds the splits or the classes
    splits: dict[str, str]  # path by split; {"train": base} if `base` holds the classes
    others: list[str]  # folders beside the splits
    above: list[str]  # the folders from the root on that hold no classes

    @property
    def has_splits(self) -> bool:
        """Whether there are folders of splits."""
        return self.splits != {"train": self.base}


def _split_folders(base: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names among those of folders that stand for splits, by split.

    Names with other words in them (seg_train, seg_test) count where these are the same in several.
    """
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in names:
        split, rest = split_and_rest(name)
        if split:
            groups.setdefault(rest, {}).setdefault(split, []).append(name)
    if () in groups:
        return _with_evaluation(groups[()])
    several = [group for group in groups.values() if "train" in group and len(group) > 1]
    if len(several) > 1:
        listed = some(name for group in several for names in group.values() for name in names)
        raise invalid(
            *("data.path", base, f"holds several train and test folders ({listed})"),
            "sort the images into train/CLASS/ and test/CLASS/, or name the folder of one of them",
        )
    return several[0] if several else {}


def _with_evaluation(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the splits with eval as test beside dev or val: train, dev and eval is customary."""
    names = splits.get("validation", [])
    evaluation = [name for name in names if "eval" in name.casefold()]
    if len(evaluation) == 1 and len(names) == 2 and "test" not in splits:
        others = [name for name in names if name not in evaluation]
        return {**splits, "validation": others, "test": evaluation}
    return splits


def find_layout(tree: Tree, root: Path, class_names: Sequence[str] = ()) -> Layout:
    """Return what the folders below `root` are, or raise a ValueError if that cannot be told.

    `class_names`: folders with these names are classes.
    """
    base, above, known = str(root), [], ClassNames(class_names)
    for _ in range(MAX_NESTED):
        names = tree.scan(base).folders
        if any(known.find(name, by_part=True) is not None for name in names):
            break
        splits = _split_folders(base, names)
        others = [name for name in names if not any(name in found for found in splits.values())]
        if splits and (class_names or _are_splits(tree, base, splits, others)):
            paths = {split: f"{base}/{found[0]}" for split, found in splits.items()}
            return Layout(str(root), base, paths, others, [*above, base])
        inner = _only_folder(tree, base)
        if inner is None:
            break
        above.append(base)
        base = inner
    return Layout(str(root), base, {"train": base}, [], above)


def _are_splits(tree: Tree, base: str, splits: dict[str, list[str]], others: Sequence[str]) -> bool:
    """Return whether folders with the names of splits are such, and no classes."""
    for split, names in splits.items():
        if len(names) > 1:
            rule = f"has both {' and '.join(names)} for the {split} split"
            raise invalid("data.path", base, rule, "remove one of them or rename it")
    listed = some(name for names in splits.values() for name in names)
    if "train" not in splits:
        beside = f" beside {some(others)}" if others else ""
        raise invalid(
            "data.path",
            base,
            f"training needs a split train, and it has {listed}{beside}",
            "add train with the class folders, or rename the folders if they are classes",
        )
    train = tree.scan(f"{base}/{splits['train'][0]}")
    if len(splits) > 1 or not others:
        return True
    if not train.folders:  # a class called train among others, or a split without class folders
        return not (train.images and any(tree.all_images(f"{base}/{name}") for name in others))
    beside = [name for name in others if not _shares_folders(tree, base, name, train.folders)]
    if any(tree.all_images(f"{base}/{name}") for name in beside):
        inner = f"{base}/{splits['train'][0]}"
        raise invalid(
            "data.path",
            base,
            f"{listed} may be the training split ({some(train.folders)}) or a class like those "
            f"beside it ({some(beside)})",
            f"name {inner} if it is the split; if it is a class, put its images directly into it",
        )
    return True


def _shares_folders(tree: Tree, base: str, name: str, folders: Sequence[str]) -> bool:
    return bool({*tree.scan(f"{base}/{name}").folders} & {*folders})


def _only_folder(tree: Tree, base: str) -> str | None:
    """Return the folder that `base` holds and nothing else, if there are further ones in it."""
    scan = tree.scan(base)
    inner = [
        name
        for name in scan.folders
        if name.lower() not in _COMPANIONS or tree.all_images(f"{base}/{name}")
    ]
    if len(inner) != 1:
        return None
    path = f"{base}/{inner[0]}"
    within = tree.scan(path)
    # Images in both might be those of one class.
    return path if within.folders and not (scan.images and within.images) else None


def open_folders(root: Path) -> OpenedFolders:
    """Open the splits below a folder, or its class folders as the split train.

    Raises:
        ValueError: `root` does not exist, or what it holds cannot be told or trained on.
    """
    tree = Tree()
    try:
        tree.scan(str(root))
    except ValueError as error:
        raise ValueError(f"data.path {error}") from error
    layout = find_layout(tree, root)
    train = _open_split(tree, layout, "train", None)
    if train is None or not (layout.has_splits or train.class_names):
        raise _without_classes(tree, layout, "train")
    splits, notes = {"train": train}, []
    for split in ("validation", "test"):
        if split in layout.splits:
            opened = _open_split(tree, layout, split, train.class_names)
            if opened is not None:
                splits[split] = opened
            elif split == "test":
                error = str(_without_classes(tree, layout, split)).removeprefix("data.path ")
                notes.append(f"{error.rstrip('.')}; until then there is no test split.")
            else:
                raise _without_classes(tree, layout, split)
    _check_apart(tree, layout, splits)
    notes = [_taken(layout, splits), *notes, *_notes_above(tree, layout)]
    if layout.has_splits and layout.others:
        notes.append(f"{layout.base}: ignored folders that are not splits: {some(layout.others)}.")
    notes += [note for source in splits.values() for note in source.notes]
    return OpenedFolders(splits, tuple(notes))


def _check_apart(tree: Tree, layout: Layout, splits: dict[str, ImageFiles]) -> None:
    """Raise a ValueError if two splits, or class folders in them, are one folder by a link."""
    found: dict[str, tuple[str, str]] = {}
    for split, source in splits.items():
        root = str(source.root)
        scan, real = tree.scan(root), os.path.realpath(root)
        links = {*scan.links}
        places = {f"{root}/{n}": f"{real}/{n}" for n in scan.folders if n not in links}
        places |= {
            f"{root}/{n}": os.path.realpath(f"{root}/{n}") for n in scan.folders if n in links
        }
        for path, target in {root: real, **places}.items():
            other, first = found.setdefault(target, (path, split))
            if first != split:
                raise invalid(
                    "data.path",
                    layout.root,
                    f"{_relative(layout.root, path)} ({split}) and "
                    f"{_relative(layout.root, other)} ({first}) are the same folder",
                    f"put images of its own into the {split} split, or remove the link",
                )


def _notes_above(tree: Tree, layout: Layout) -> list[str]:
    """Return what lies beside the splits, or beside the folder that holds all others."""
    notes = []
    for path in layout.above:
        passed, scan = PassedOver(), tree.scan(path)
        passed.add(tree, path, scan)
        passed.non_images.clear()  # texts and tables belong there
        notes += [*loose_images(path, scan), *passed.describe(path)]
    return notes


def open_class_folders(root: Path, class_names: Sequence[str], name: str) -> ImageFiles:
    """Open the folder of class folders of a network, or of images with a table beside them.

    Args:
        root: the folder.
        class_names: of the network; a class folder has one of them, or its first word.
        name: of the argument that named the folder, for messages.

    Raises:
        ValueError: there are no class folders, or one is not named after a class.
    """
    tree = Tree()
    try:
        layout = find_layout(tree, root, class_names)
    except ValueError as error:
        raise ValueError(str(error).replace("data.path", name, 1)) from error
    if layout.has_splits:
        rule = f"holds the splits {some(map(_last, layout.splits.values()))}"
        raise invalid(name, root, rule, f"name {' or '.join(layout.splits.values())}")
    files = tree.scan(layout.base)
    if not files.folders or _flat(tree, layout.base, class_names):
        opened = _open_flat(tree, layout, "validation", layout.base, class_names)
        if opened is None:
            number = len(tree.all_images(layout.base))
            raise invalid(
                name,
                root,
                f"must hold a folder for each class, and holds {number:,} images and no class "
                "folders",
                "name the folder that holds the class folders",
            )
        return opened
    known = ClassNames(class_names)
    if twice := [folder for folder in files.folders if normalize(folder) in known.twice]:
        rule = f"{twice[0]} is the name of several classes of the network"
        remedy = "import it with class names that differ, and name the folders after them"
        raise invalid(name, root, rule, remedy)
    if unknown := [f for f in files.folders if known.find(f, by_part=True) is None]:
        rule = (
            f"{len(unknown):,} class folders ({some(unknown)}) are not classes of the network "
            f"({some(class_names)})"
        )
        raise invalid(name, root, rule, "rename them, or import the network with its class names")
    check_classes(tree, layout.base, name)
    source = Folder(Path(layout.base), class_names, tree, by_part=True)
    below = f" in {_relative(layout.root, layout.base)}" if layout.base != layout.root else ""
    taken = f"{root}: {len(files.folders):,} class folders{below}, {len(source):,} images."
    source.notes = (taken, *source.notes)
    return source


def _open_split(
    tree: Tree, layout: Layout, split: str, class_names: Sequence[str] | None
) -> ImageFiles | None:
    """Return the images of a split; None if it has some, but no class folders and no table."""
    path = _inner(tree, layout.splits[split], class_names)
    if _flat(tree, path, class_names):
        return _open_flat(tree, layout, split, path, class_names)
    check_classes(tree, path, "data.path")
    return Folder(Path(path), class_names, tree)


def _inner(tree: Tree, path: str, class_names: Sequence[str] | None) -> str:
    """Return the folder with the class folders in that of a split (seg_train/seg_train/CLASS)."""
    for _ in range(MAX_NESTED):
        inner = _only_folder(tree, path)
        if inner is None or (
            class_names and ClassNames(class_names).find(_last(inner)) is not None
        ):
            break
        path = inner
    return path


def _flat(tree: Tree, path: str, class_names: Sequence[str] | None) -> bool:
    """Return whether a folder holds images and no class folders, perhaps in a folder `images`."""
    scan = tree.scan(path)
    if len(scan.folders) != 1:
        return bool(scan.images) and not scan.folders
    name = scan.folders[0]
    is_class = class_names and ClassNames(class_names).find(name, by_part=True) is not None
    generic = name.lower() in NEUTRAL or split_of(name) is not None
    return generic and not is_class and not scan.images


def _open_flat(
    tree: Tree, layout: Layout, split: str, path: str, class_names: Sequence[str] | None
) -> ImageFiles | None:
    folder = path
    while (scan := tree.scan(folder)).folders and not scan.images:
        folder = f"{folder}/{scan.folders[0]}"
    own = layout.splits.get(split, path)
    places = [Path(place) for place in dict.fromkeys((folder, own, layout.base, layout.root))]
    tables = find_tables(places)
    if layout.has_splits:  # 0.png may be in every split: not by the table of another one
        tables = [t for t in tables if split_and_rest(t.stem)[0] in (None, split)]
    else:
        beside = find_tables([Path(layout.root).absolute().parent])
        tables += [t for t in beside if t.stem.startswith(Path(layout.root).absolute().name)]
    labels = labels_from_tables(tables, scan.images, class_names)
    if labels is None and split == "validation" and class_names is not None:
        labels = labels_from_devkit(places, scan.images, class_names)
    return None if labels is None else _labeled(tree, folder, labels)


def _labeled(tree: Tree, folder: str, labels: Labels) -> ImageFiles:
    passed, scan = PassedOver(), tree.scan(folder)
    passed.add(tree, folder, scan)
    files = sorted((name for name in scan.images if name in labels.by_file), key=normalize)
    source = ImageFiles(
        Path(folder), labels.class_names, files, [labels.by_file[name] for name in files]
    )
    notes = [f"{folder}: {len(files):,} images labeled by {labels.describe()}."]
    if labels.num_unlisted:
        notes.append(
            f"{folder}: passed over images that it does not list: {labels.num_unlisted:,}."
        )
    source.notes = (*notes, *passed.describe(folder))
    return source


def _without_classes(tree: Tree, layout: Layout, split: str) -> ValueError:
    path = layout.splits[split]
    number = len(tree.all_images(path))
    return invalid(
        "data.path",
        path,
        f"must contain a folder for each class, and holds {number:,} images and no class folders",
        "sort the images into class folders, or put their labels beside them: a CSV of "
        "filename,label, Kaggle's LOC_val_solution.csv or the development kit of ILSVRC-2012",
    )


def _taken(layout: Layout, splits: dict[str, ImageFiles]) -> str:
    """Return a sentence about what was taken for what."""
    if not layout.has_splits:
        names = splits["train"].class_names
        place = _relative(layout.root, layout.base)
        where = f"the folders in {place}" if place != "." else "its folders"
        return f"{layout.root}: {where} are taken for {len(names):,} classes ({some(names)})."
    taken = ", ".join(
        f"{split} is {_relative(layout.root, str(source.root))}" for split, source in splits.items()
    )
    return f"{layout.root}: {taken}."


def _relative(root: str, path: str) -> str:
    return os.path.relpath(path, root)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
