"""Imports run one way, and only model/towers.py names a mesh axis: read from the source text."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGE = "alexnet_jax"

# What each room may import besides itself and the configuration. Whatever is no room is a command
# or the configuration; commands import what they need, and no room imports one or `cli`.
TRAINING = ("storage", "data", "model", "training")
ROOMS = {
    "storage": (),
    "data": ("storage",),
    "model": (),
    "training": ("storage", "data", "model", "presets", "__version__"),
    "inference": (*TRAINING, "presets"),
    "plots": (*TRAINING, "inference", "explanations", "analysis"),
    "page": (*TRAINING, "inference", "plots", "presets"),
    "retrieval": (*TRAINING, "inference"),
    "explanations": (*TRAINING, "inference", "retrieval"),
    "weights": (*TRAINING, "presets"),
    "fidelity": (*TRAINING, "presets"),
    "analysis": TRAINING,
    "cli": ("storage", "model", "training", "weights", "presets"),
}
ALLOWED = {"config": (), "presets": (), **ROOMS}
LIBRARY = {*ROOMS} - {"cli"}  # where options are unknown

AXES = {"data", "tower"}
AXIS_CONSTANTS = {"DATA", "TOWER"}  # their names in towers.py
# Calls that take mesh axis names; `P` is the usual short name of PartitionSpec.
AXIS_CALLS = {
    *("P", "PartitionSpec", "NamedSharding", "Mesh", "AbstractMesh", "make_mesh", "shard_map"),
    *("psum", "pmean", "pmax", "pmin", "psum_scatter", "all_gather", "all_to_all", "ppermute"),
    *("pshuffle", "pcast", "pvary", "axis_index", "axis_size"),
}


def sources(folder: str) -> list[Path]:
    return sorted((CHECKOUT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(text: str, module: str, is_package: bool = False) -> set[str]:
    """Return the dotted names that `module` imports anywhere, also inside functions.

    `from a import b` counts as `a.b`: whether b is a module or a name in it, a prefix decides.
    """
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                here = module.split(".")
                kept = len(here) - node.level + is_package
                base = here[:kept] + base
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def broken_rules(module: str, names: set[str]) -> set[str]:
    """Return those of the imported `names` that `module` must not import."""
    inside = {name for name in names if within(name, PACKAGE)}
    broken = {name for name in names if within(name, "tensorflow")}
    if not within(module, PACKAGE):
        return broken
    broken |= {name for name in names if within(name, "experiments", "notebooks", "tests")}
    place = module.removeprefix(f"{PACKAGE}.").partition(".")[0]
    if place == "data":
        broken |= {
            name for name in names if within(name, "jax", "jaxlib", "flax", "optax", "orbax")
        }
    if place in ALLOWED:
        allowed = [f"{PACKAGE}.{other}" for other in (place, "config", *ALLOWED[place])]
        broken |= {name for name in inside if not within(name, *allowed)}
    return broken


def axis_names(text: str) -> Iterator[int]:
    """Yield the line of each axis name in a call of AXIS_CALLS or in `mesh.shape[axis]`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and identifier(node.func) in AXIS_CALLS:
            inner = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Subscript) and identifier(node.value) == "shape":
            inner = [node.slice]
        else:
            continue
        if any(is_axis(child) for argument in inner for child in ast.walk(argument)):
            yield node.lineno


def identifier(node: ast.AST) -> str | None:
    """Return the last part of a dotted name."""
    return getattr(node, "attr", getattr(node, "id", None))


def is_axis(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in AXES
    return identifier(node) in AXIS_CONSTANTS


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_name)
def test_package_imports_run_one_way(path):
    module = module_name(path)
    names = imported(path.read_text(), module, is_package=path.name == "__init__.py")
    assert broken_rules(module, names) == set()


@pytest.mark.parametrize("path", sources("experiments") + sources("tests"), ids=module_name)
def test_nothing_else_imports_tensorflow(path):
    module = module_name(path)
    assert broken_rules(module, imported(path.read_text(), module)) == set()


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_name)
def test_only_towers_names_a_mesh_axis(path):
    lines = list(axis_names(path.read_text()))
    if module_name(path) == f"{PACKAGE}.model.towers":
        assert lines, "towers.py names no axis: this test no longer sees how axes are named"
    else:
        assert lines == []


def test_the_package_itself_imports_what_it_offers_alone():
    names = imported((CHECKOUT / PACKAGE / "__init__.py").read_text(), PACKAGE, True)
    others = ("typing", "importlib", "pathlib", "jax")
    assert {name for name in names if not within(name, *others)} == {
        f"{PACKAGE}.data.pairs.Pairs",
        f"{PACKAGE}.inference.model.create",
        f"{PACKAGE}.inference.network.Network",
        f"{PACKAGE}.inference.network.load_network",
        f"{PACKAGE}.weights.published",
        f"{PACKAGE}.presets.PRESETS",
        f"{PACKAGE}.training.loop.train_and_evaluate",
    }


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("config", "from alexnet_jax.model import variants"),
        ("config", "from alexnet_jax.data.sources import Folder"),
        ("presets", "from alexnet_jax.model import variants"),
        ("storage.lock", "from alexnet_jax.data import sources"),
        ("data.splits", "from alexnet_jax.model import architecture"),
        ("data.splits", "import alexnet_jax.training.loop"),
        ("data.splits", "def f():\n    import jax.numpy as jnp"),
        ("data.splits", "from alexnet_jax import prepare"),
        ("data.splits", "from alexnet_jax.cli import errors"),
        ("data", "from .. import model"),
        ("data.splits", "from ..training import metrics"),
        ("data.splits", "from tensorflow.io import gfile"),
        ("model.alexnet", "from ..data import crops"),
        ("model.alexnet", "from alexnet_jax.training.step import make_train_step"),
        ("training.summary", "from alexnet_jax import plots"),
        ("training.summary", "from alexnet_jax.plots import curves"),
        ("training.loop", "from alexnet_jax.inference import network"),
        ("training.loop", "from alexnet_jax import main"),
        ("training.loop", "from alexnet_jax.cli import signals"),
        ("training.loop", "import experiments.claims.depth"),
        ("inference.network", "from alexnet_jax.plots import tiles"),
        ("retrieval.index", "from alexnet_jax.cli.arguments import check_picture"),
        ("weights.files", "from alexnet_jax import pretrained"),
        ("cli.errors", "from alexnet_jax.data import sources"),
        ("cli.errors", "from alexnet_jax import main"),
        ("plots.curves", "from tests import conftest"),
        ("figures", "import tensorflow as tf"),
    ],
)
def test_a_forbidden_import_is_seen(module, statement):
    names = imported(statement, f"{PACKAGE}.{module}", is_package=module == "data")
    assert broken_rules(f"{PACKAGE}.{module}", names) == names


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("data.splits", "from . import crops"),
        ("data.splits", "import tensorflow_datasets as tfds"),
        ("data.splits", "from alexnet_jax.config import DataConfig"),
        ("data.shards.plan", "from alexnet_jax.storage.atomic import write_json"),
        ("model.towers", "import jax"),
        ("training.loop", "from alexnet_jax import config"),
        ("training.loop", "from alexnet_jax.data import pipeline"),
        ("cli.errors", "from alexnet_jax.training.stopping import Stopped"),
        ("prepare", "from alexnet_jax.cli.errors import run_command"),
        ("main", "from alexnet_jax import figures"),
    ],
)
def test_an_allowed_import_passes(module, statement):
    names = imported(statement, f"{PACKAGE}.{module}")
    assert broken_rules(f"{PACKAGE}.{module}", names) == set()


def test_every_folder_is_a_room_and_every_file_above_a_command_or_the_configuration():
    root = CHECKOUT / PACKAGE
    folders = {path.parent.name for path in root.glob("*/__init__.py")}
    assert folders == {*ROOMS}
    files = {path.stem for path in root.glob("*.py")} - {"__init__", "__main__"}
    for name in files - {"config", "presets"}:
        text = (root / f"{name}.py").read_text()
        assert "class Command:" in text, name
        assert f"python -m alexnet_jax.{name}" in text, name
        assert re.search(r"^def main\(", text, re.MULTILINE), name


def options_in(source: str) -> Iterator[str]:
    """Yield the texts in a module, but for docstrings, that name an option such as --seed."""
    tree = ast.parse(source)
    bodies = [node.body for node in ast.walk(tree) if hasattr(node, "body")]
    docstrings = {
        id(body[0].value)
        for body in bodies
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr)
    }
    texts = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and id(node) not in docstrings
    )
    for text in texts:
        if isinstance(text, str) and re.search(r"(?<![\w-])--[a-z]", text):
            yield text


@pytest.mark.parametrize(
    "path",
    [path for path in sources(PACKAGE) if path.relative_to(CHECKOUT).parts[1] in LIBRARY],
    ids=module_name,
)
def test_the_library_names_fields_and_no_options(path):
    assert [*options_in(path.read_text())] == []


def test_options_are_seen():
    assert [*options_in('def f():\n    """See --help."""\n    return "use --seed 1"')] == [
        "use --seed 1"
    ]
    assert [*options_in('x = "1--2", "a-b", "-- c"')] == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("spec = P('data', None)", [1]),
        ("\nspec = jax.sharding.PartitionSpec(None, ('data', 'tower'))", [2]),
        ("jax.lax.all_gather(x, 'tower', axis=3, tiled=True)", [1]),
        ("lax.psum(x, axis_name='data')", [1]),
        ("towers = mesh.shape['tower']", [1]),
        ("P(DATA), NamedSharding(mesh, P(None, towers.TOWER))", [1, 1, 1]),
        ("directory = path / 'data'; row = Layer(sees='tower'); config['data']", []),
        ("P(None)", []),
    ],
)
def test_axis_names_are_seen(text, lines):
    assert sorted(axis_names(text)) == lines
