"""Folders that are no classes: parts of a data set, copies of classes, images and masks."""

import os
import re
import unicodedata
from collections.abc import Sequence

from alexnet_jax.config import invalid
from alexnet_jax.data.class_names import normalize
from alexnet_jax.data.folders import Tree, some
from alexnet_jax.data.split_names import NEUTRAL, SPLIT_OF_WORD, split_of

# Words of folders that a data set is divided into, with a number or a letter (part1, batch_b).
_PARTS = frozenset(
    ("part", "parts", "batch", "chunk", "fold", "folder", "set", "subset", "group", "archive")
    + ("volume", "vol", "disk", "disc", "dataset", "download", "piece", "section", "split", "zip")
)
# Folders of data for segmentation or detection: images, and what is drawn in them.
_IMAGE_FOLDERS = frozenset(("image", "images", "img", "imgs", "jpegimages", "pictures", "photos"))
_MASK_FOLDERS = frozenset(
    ("mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationobject")
    + ("annotation", "annotations", "label", "labels", "groundtruth", "gt")
)
_OF_EITHER = _IMAGE_FOLDERS | {"all", "data", "original", "raw", "png", "jpg", "semantic", "class"}


def check_classes(tree: Tree, base: str, name: str) -> None:
    """Raise a ValueError if the folders in `base` cannot be classes.

    They cannot if all hold the same folders, if one holds copies of others, or if images and masks
    are apart in them. `name`: of the argument, for the message.
    """
    folders = tree.scan(base).folders
    if len(folders) < 2:
        return
    if pair := _images_and_masks(folders):
        drawn = "masks" if tree.all_images(f"{base}/{pair[1]}") else "annotations"
        remedy = f"sort the images into a folder for each class, without the {drawn}"
        if tree.scan(f"{base}/{pair[0]}").folders:
            remedy = f"name {base}/{pair[0]} if it holds a folder for each class"
        raise invalid(
            name,
            base,
            f"holds images and their {drawn} ({', '.join(pair)}), and no folder for each class",
            f"{remedy}; if these are classes, rename them",
        )
    inner = [{*tree.scan(f"{base}/{folder}").folders} for folder in folders]
    if all(any(split_of(n) == "train" for n in names) for names in inner):
        raise invalid(
            name,
            base,
            f"each of its folders ({some(folders)}) holds a split of its own "
            f"({some(sorted(inner[0]))})",
            "sort the images into train/CLASS/ and test/CLASS/",
        )
    common = set.intersection(*inner)
    if len(common) >= 2 and all(2 * len(common) >= len(names) for names in inner):
        raise invalid(
            name,
            base,
            f"its folders {some(folders)} all hold the same folders ({some(sorted(common))}), as "
            "splits do and not classes",
            "rename them train, validation and test, or name one of them; if they are classes, "
            "put their images directly into them",
        )
    if all(inner) and all(_is_part(tree, base, folder) for folder in folders):
        raise invalid(
            name,
            base,
            f"its folders {some(folders)} are parts of one data set by their names, and hold "
            f"further folders ({some(sorted(set.union(*inner)))}) and no images",
            "move the class folders of all parts into one folder; if the parts are classes, put "
            "their images directly into them",
        )
    for folder in folders:
        _check_within(tree, base, name, folder)


def _is_part(tree: Tree, base: str, name: str) -> bool:
    """Return whether a folder has the name of a part of something, and holds no images itself."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    parts = [word for word in words if word in _PARTS]
    others = [word for word in words if len(word) > 1 and word not in (*_PARTS, *NEUTRAL)]
    return bool(parts) and not others and not tree.scan(f"{base}/{name}").images


def _check_within(tree: Tree, base: str, name: str, folder: str) -> None:
    """Raise a ValueError if a class folder holds copies of classes, or masks beside its images."""
    classes = {normalize(other).casefold() for other in tree.scan(base).folders}
    level = [f"{base}/{folder}"]
    while level:
        below = []
        for path in level:
            inner, links = tree.scan(path).folders, {*tree.scan(path).links}
            copies = [n for n in inner if normalize(n).casefold() in classes]
            # Numbers may be those of patients or takes.
            if sum(not n.isdecimal() for n in copies) > 1:
                raise invalid(
                    name,
                    base,
                    f"its folder {os.path.relpath(path, base)} holds folders named like the "
                    f"classes ({some(copies)})",
                    f"move or remove {path}, or name one of the two folders, {base} or {path}",
                )
            if (pair := _images_and_masks(inner)) and tree.all_images(f"{path}/{pair[1]}"):
                raise invalid(
                    name,
                    base,
                    f"its folder {os.path.relpath(path, base)} holds images and their masks "
                    f"({', '.join(pair)}), which would be taken for images of the class",
                    f"move {path}/{pair[1]} out of it",
                )
            below += [f"{path}/{n}" for n in inner if n not in links]  # they may lead in a circle
        level = below


def _images_and_masks(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the names of a folder of images and of one of masks, if both are among the names."""
    images, masks = [], []
    for name in names:
        words = _words_of_content(name)
        if words & _MASK_FOLDERS and words <= _MASK_FOLDERS | _OF_EITHER:
            masks.append(name)
        elif words & _IMAGE_FOLDERS and words <= _OF_EITHER:
            images.append(name)
    return (images[0], masks[0]) if images and masks else None


def _words_of_content(name: str) -> set[str]:
    """Return the words in a folder's name other than those of splits."""
    words = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFKC", name).casefold())
    return {word for word in words if word not in SPLIT_OF_WORD}
