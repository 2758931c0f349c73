"""Explain predictions: `python -m alexnet_jax.explain --workdir runs/a photo.jpg`."""

import dataclasses
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from alexnet_jax.cli.arguments import check_picture, parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.cli.published import check_one, run_of
from alexnet_jax.cli.streams import notes
from alexnet_jax.config import PublishedName, invalid
from alexnet_jax.data.class_names import ClassNames
from alexnet_jax.data.folders import list_images
from alexnet_jax.data.images import UnreadableImage, open_image
from alexnet_jax.predict import Prediction, find
from alexnet_jax.storage.names import as_json, printable

if TYPE_CHECKING:
    from alexnet_jax.explanations.patches import Patch, Unit
    from alexnet_jax.explanations.photographs import Explainer, Explanation
    from alexnet_jax.inference.network import Network

PROGRAM = "python -m alexnet_jax.explain"
TOP = 3  # classes that are printed
# The options that are about photographs, or about units, without their defaults.
OF_PHOTOGRAPHS = ("methods", "class_name", "layer", "window", "stride", "score", "maps")
OF_UNITS = ("images", "top")


@dataclasses.dataclass(frozen=True)
class Command:
    """Draw what speaks for a class in photographs, and what units answer to.

    Three maps for each photograph: by how much the class's score drops where a gray square covers
    the photograph (occlusion, Zeiler and Fergus 2014); the gradient of the score with respect to
    the preprocessed image (Simonyan et al. 2014); Grad-CAM (Selvaraju et al. 2017), also by tower.
    With --units, the parts of the images of a folder to which units answer most strongly.
    """

    # photographs, and folders of them at any depth
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    # folder of the run, trained or imported
    workdir: Path | None = None
    # published weights instead of a run; downloaded and imported once
    weights: PublishedName | None = None
    # maps to draw; by default all
    methods: tuple[Literal["occlusion", "gradient", "gradcam"], ...] = ()
    # class to explain; by default the predicted class of each photograph
    class_name: Annotated[str, tyro.conf.arg(name="class")] = ""
    # layer of Grad-CAM, a convolution or what follows one: relu2, pool1; by default the last
    # convolution after its ReLU whose maps have at least 5 x 5 values
    layer: str = ""
    # side of the gray square in pixels; by default a quarter of the crop
    window: int | None = None
    # pixels between squares; by default a quarter of the window
    stride: int | None = None
    # what is explained: the class's logit (the default) or its probability
    score: Literal["logit", "probability"] | None = None
    # units whose strongest patches to draw, numbered from 0: conv5:3 conv5:17 fc7:0
    units: tuple[str, ...] = ()
    # folder of images, at any depth, to look for these patches
    images: Path | None = None
    # number of patches of each unit; by default 9
    top: int | None = None
    # picture to draw; by default figures/explanation.png in the run's folder (figures/units.png for
    # units). Of more than eight photographs, the next eight go to explanation-2.png, and so on; of
    # photographs and units, the units to explanation-units.png
    save: Path | None = None
    # also write the maps of all photographs to this .npz file
    maps: Path | None = None
    # print a JSON object for each photograph or unit instead
    json: bool = False
    # which checkpoint: the latest, or the one with the lowest validation error
    checkpoint: Literal["latest", "best"] = "latest"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 if some file could not be read."""
    unread = 0

    def run() -> None:
        nonlocal unread
        command = parse_command(Command, sys.argv[1:] if args is None else args, PROGRAM)
        unread = explain(command)

    interrupted = "interrupted; the same command begins again."
    return run_command(run, Command, interrupted, {"classes": "--class"}) or int(unread > 0)


def explain(args: Command) -> int:
    """Print and draw the explanations; return how many files could not be read."""
    _check(args)
    from alexnet_jax.inference.network import load_network
    from alexnet_jax.model import towers

    mesh = towers.make_mesh(towers=1, data=1, batch=1)
    network = load_network(run_of(args.workdir, args.weights), mesh, args.checkpoint)
    num_unread = explain_photographs(network, args) if args.files else 0
    return num_unread + (show_units(network, args) if args.units else 0)


def _check(args: Command) -> None:
    """Raise a ValueError for arguments that do not go together: none is ignored."""
    check_one(args.workdir, args.weights)
    if not args.files and not args.units:
        raise ValueError("No files: name photographs, or units with --units and --images.")
    if args.save:
        check_picture(args.save, "--save")
    if args.maps and args.maps.suffix.lower() != ".npz":
        remedy = f"try {args.maps.with_suffix('.npz')}"
        raise invalid("--maps", args.maps, "must end in .npz", remedy)
    for needed, names, what in (
        (args.files, OF_PHOTOGRAPHS, "photographs, and none are named"),
        (args.units, OF_UNITS, "units, and --units names none"),
        (not args.methods or "gradcam" in args.methods, ("layer",), "gradcam, not in --methods"),
        (
            not args.methods or "occlusion" in args.methods,
            ("window", "stride"),
            "occlusion, not in --methods",
        ),
    ):
        for name in names:
            value = getattr(args, name)
            if not needed and value not in (None, "", ()):
                option = {"class_name": "--class"}.get(name, f"--{name}")
                shown = " ".join(value) if isinstance(value, tuple) else value
                raise invalid(option, shown, f"is only for {what}", "leave it out")
    if args.units and args.images is None:
        raise invalid("--units", " ".join(args.units), "needs images", "add --images DIR")
    if args.images is not None and not args.images.is_dir():
        rule = "is no folder" if args.images.exists() else "does not exist"
        raise invalid("--images", args.images, rule, "name the folder of the images")


def explain_photographs(network: "Network", args: Command) -> int:
    """Explain each photograph; return how many files could not be read."""
    from alexnet_jax.explanations.photographs import METHODS, Explainer, save_maps
    from alexnet_jax.plots.explanations import ROWS

    label = _label(network, args.class_name)
    explainer = Explainer(
        *(network, args.methods or METHODS),
        layer=_layer(network, args.layer),
        window=args.window,
        stride=args.stride,
        score=args.score or "logit",
    )
    path = args.save or network.workdir / "figures" / "explanation.png"
    num_read, num_unread, page, kept = 0, 0, [], []
    for item in _read(find(args.files)):
        if isinstance(item, Prediction):
            num_unread += 1
            _print_note(f"{item.file}: {item.error}; skipped")
            continue
        explanation = explainer(*item, label)
        num_read += 1
        line = _text(explanation, explainer)
        if args.json:
            line = _json(explanation, explainer, network.caveats)
        print(line, flush=True)  # each as soon as it is known, also into a pipe
        kept += [explanation] if args.maps else []
        page.append(explanation)
        if len(page) == ROWS:
            _draw(page, explainer, _numbered(path, num_read // ROWS))
            page = []
    if page:
        _draw(page, explainer, _numbered(path, num_read // ROWS + 1))
    if args.maps and kept:
        save_maps(kept, args.maps)
        _print_note(f"Saved {args.maps}: the maps of {len(kept):,} photographs.")
    if num_unread:
        _print_note(f"{num_unread:,} of {num_read + num_unread:,} are unreadable.")
    return num_unread


def show_units(network: "Network", args: Command) -> int:
    """Print and draw the strongest patches of units; return how many files could not be read."""
    from alexnet_jax.explanations.patches import TOP, parse_units, strongest_patches
    from alexnet_jax.plots import patches
    from alexnet_jax.plots.tiles import save
    from alexnet_jax.retrieval.features import describe_unreadable

    assert args.images is not None  # _check
    top = TOP if args.top is None else args.top
    units = parse_units(network, args.units)
    listing = list_images(args.images)
    for note in listing.notes:
        _print_note(note)
    if not listing.files:
        raise invalid("--images", args.images, "holds no images", "name another folder")
    found = strongest_patches(network, listing.files, units, top)
    if found.unreadable:
        reasons = {str(file): reason for file, reason in found.unreadable.items()}
        _print_note(describe_unreadable(reasons))
    if len(found.unreadable) == len(listing.files):
        return len(found.unreadable)
    for unit, strongest in found.patches.items():
        print(_unit_json(unit, strongest, network) if args.json else _unit_text(unit, strongest))
    path = network.workdir / "figures" / "units.png"
    if args.save:
        path = args.save.with_stem(f"{args.save.stem}-units") if args.files else args.save
    save(patches.draw(found.patches), path)
    of = f"{len(units):,} unit{'s' * (len(units) != 1)}"
    _print_note(f"Saved {path}: {of}, {len(listing.files):,} images.")
    return len(found.unreadable)


def _label(network: "Network", name: str) -> int | None:
    """Return the number of a class, None for the predicted one."""
    if not name:
        return None
    label = ClassNames(network.class_names).find(name, by_part=True)
    if label is None:
        close = difflib.get_close_matches(name, network.class_names, n=1, cutoff=0.0)
        rule = f"must be one of the {len(network.class_names):,} classes of the network"
        raise invalid("--class", name, rule, f"try {close[0]!r}")
    return label


def _layer(network: "Network", name: str) -> str:
    """Return the network's own name of a layer, as torchvision has others; "" for the default."""
    if not name:
        return ""
    from alexnet_jax.explanations.grad_cam import check_maps
    from alexnet_jax.retrieval.features import torchvision_nodes

    if network.config.model.variant == "torchvision":
        name = torchvision_nodes(network.architecture).get(name, name)
    check_maps(network.architecture, name)
    return name


def _read(found: Iterator[Path | Prediction]) -> Iterator[tuple[Path, np.ndarray] | Prediction]:
    """Yield each file with its image, uint8 [H, W, 3], or a prediction with the error."""
    for file in found:
        if isinstance(file, Prediction):
            yield file
            continue
        try:
            yield file, open_image(file)
        except UnreadableImage as error:
            yield Prediction(file, None, None, str(error))


def _numbered(path: Path, page: int) -> Path:
    return path if page == 1 else path.with_stem(f"{path.stem}-{page}")


def _draw(page: Sequence["Explanation"], explainer: "Explainer", path: Path) -> None:
    from alexnet_jax.plots import explanations
    from alexnet_jax.plots.tiles import save

    save(explanations.draw(page, explainer.layer, explainer.score), path)
    _print_note(f"Saved {path}: {len(page)} photograph{'s'[: len(page) > 1]}.")


def _values(explanation: "Explanation", explainer: "Explainer") -> dict[str, dict[str, Any]]:
    """Return what is printed of each map."""
    values: dict[str, dict[str, Any]] = {}
    for method, values_of in explanation.maps.items():
        peak = explanation.peak(method)
        values[method] = {"max": float(values_of.max()), "peak": peak and list(peak)}
        if method == "occlusion":
            values[method] |= {"window": explainer.window, "stride": explainer.stride}
        if method == "gradcam":
            values[method]["layer"] = explainer.layer
            if explanation.towers is not None and peak:
                row, column = peak
                values[method]["towers"] = explanation.towers[:, row, column].tolist()
    return values


def _text(explanation: "Explanation", explainer: "Explainer") -> str:
    names = explainer.network.class_names
    order = np.argsort(-explanation.probabilities, kind="stable")[:TOP]
    best = [f"{explanation.probabilities[i]:6.1%} {printable(names[i])}" for i in order]
    name, score = printable(names[explanation.label]), explainer.score
    lines = [printable(explanation.file), f"  {'   '.join(best)}"]
    lines.append(f"  What speaks for {name} ({score} {explanation.score:.4g}), in the center crop:")
    for method, values in _values(explanation, explainer).items():
        where = "nothing does"
        if values["peak"]:
            where = f"strongest at row {values['peak'][0]}, column {values['peak'][1]}"
        title, more = method, ""
        if method == "occlusion":
            title = f"occlusion, {values['window']} px square every {values['stride']} px"
            more = f", where the {score} drops by {values['max']:.4g}" if values["peak"] else ""
        if method == "gradcam":
            title = f"Grad-CAM of {values['layer']}"
            if "towers" in values:
                first, second = values["towers"]
                more = f", where tower 0 adds {first:.3g} and tower 1 {second:.3g}"
        lines.append(f"    {title}: {where}{more}")
    return "\n".join(lines)


def _json(explanation: "Explanation", explainer: "Explainer", caveats: dict[str, list[str]]) -> str:
    names, probabilities = explainer.network.class_names, explanation.probabilities
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    classes = [{"class": names[i], "probability": float(probabilities[i])} for i in order]
    values = {
        "file": str(explanation.file),
        "predictions": classes,
        "class": names[explanation.label],
        explainer.score: explanation.score,
        "maps": _values(explanation, explainer),
    }
    return as_json(values | caveats)


def _unit_text(unit: "Unit", strongest: Sequence["Patch"]) -> str:
    tower = "" if unit.tower is None else f", tower {unit.tower}"
    lines = [f"{unit}{tower}"]
    for patch in strongest:
        left, top, right, bottom = patch.box
        lines.append(
            f"  {patch.value:10.4g}  rows {top} to {bottom - 1}, columns {left} to {right - 1}  "
            f"{printable(patch.file)}"
        )
    return "\n".join(lines)


def _unit_json(unit: "Unit", strongest: Sequence["Patch"], network: "Network") -> str:
    patches = [
        {"file": str(p.file), "value": p.value, "point": list(p.point), "box": list(p.box)}
        for p in strongest
    ]
    values = {"unit": str(unit), "tower": unit.tower, "patches": patches}
    return as_json(values | network.caveats)


def _print_note(text: str) -> None:
    """Print what is not a result, as results may be JSON."""
    print(printable(text), file=notes(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
