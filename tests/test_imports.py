"""Imports run one way, and only model/towers.py names a mesh axis: read from the source text."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGE = "alexnet_jax"

# Commands that lie in a room: like all commands they use what they need, and nobody imports them.
COMMANDS = (f"{PACKAGE}.data.prepare",)

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
    room = f"{PACKAGE}."
    allowed_from_package = {
        f"{room}data": (f"{room}data", f"{room}config"),
        f"{room}model": (f"{room}model", f"{room}config"),
        f"{room}training": tuple(
            room + one
            for one in ("training", "data", "model", "config", "figures", "lock", "__version__")
        ),
        f"{room}config": (f"{room}model.architecture", f"{room}model.variants"),
    }
    forbidden = {"tensorflow"}
    if within(module, PACKAGE):
        forbidden |= {"experiments", "notebooks", "tests", *COMMANDS}
    if within(module, f"{room}data"):
        forbidden |= {"jax", "jaxlib", "flax", "optax", "orbax"}
    broken = {name for name in names if within(name, *forbidden)}
    for prefix, allowed in allowed_from_package.items():
        if within(module, prefix) and module not in COMMANDS:
            broken |= {
                name for name in names if within(name, PACKAGE) and not within(name, *allowed)
            }
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


def test_the_package_itself_imports_nothing():
    assert imported((CHECKOUT / PACKAGE / "__init__.py").read_text(), PACKAGE, True) == set()


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("data.records", "from alexnet_jax.model import architecture"),
        ("data.records", "import alexnet_jax.training.loop"),
        ("data.records", "def f():\n    import jax.numpy as jnp"),
        ("data.records", "from alexnet_jax.data import prepare"),
        ("data.records", "from alexnet_jax import command"),
        ("data.prepare", "import jax"),
        ("data", "from .. import model"),
        ("data.records", "from ..training import writer"),
        ("data.records", "from alexnet_jax import main"),
        ("model.alexnet", "from ..data import augment"),
        ("model.alexnet", "from alexnet_jax.training.step import train_step"),
        ("training.loop", "from alexnet_jax import main"),
        ("training.loop", "import experiments.curve"),
        ("config", "from alexnet_jax.model import alexnet"),
        ("config", "from alexnet_jax.data.splits import Folder"),
        ("figures", "from tests import conftest"),
        ("figures", "import tensorflow as tf"),
        ("data.records", "from tensorflow.io import gfile"),
    ],
)
def test_a_forbidden_import_is_seen(module, statement):
    is_package = module == "data"
    names = imported(statement, f"{PACKAGE}.{module}", is_package)
    assert broken_rules(f"{PACKAGE}.{module}", names) == names


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("data.records", "from . import augment"),
        ("data.prepare", "from alexnet_jax import command"),
        ("data.records", "import tensorflow_datasets as tfds"),
        ("data.records", "from alexnet_jax.config import DataConfig"),
        ("model.towers", "import jax"),
        ("training.loop", "from alexnet_jax import config, figures"),
        ("training.loop", "from alexnet_jax.data import pipeline"),
        ("config", "from alexnet_jax.model import architecture"),
        ("main", "from alexnet_jax.training import loop"),
    ],
)
def test_an_allowed_import_passes(module, statement):
    names = imported(statement, f"{PACKAGE}.{module}")
    assert broken_rules(f"{PACKAGE}.{module}", names) == set()


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
