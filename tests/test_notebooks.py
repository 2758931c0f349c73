"""The notebooks: cells only call the package, hold no outputs, and run from top to bottom."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
MAGIC = re.compile(r"^\s*[%!]", re.MULTILINE)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

# A kernel runs cells while an event loop runs, and so does this.
RUN = """
import asyncio, json, sys

async def run(path):
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.load(open(path, encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code" and "install" not in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            exec(compile(source, f"cell {number} of {path}", "exec"), names)

asyncio.run(run(sys.argv[1]))
"""

# Before it, so that a notebook takes seconds: tiny networks and one epoch under the same names.
SHRINK = """
import dataclasses

from alexnet_jax.presets import PRESETS

for name in ("quickstart", "paper"):
    config = PRESETS[name]
    PRESETS[name] = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, image_size=72, crop=36),
        model=dataclasses.replace(config.model, width=0.05),
        schedule=dataclasses.replace(config.schedule, epochs=1, milestones=()),
    )
"""

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def is_install(cell):
    return "install" in cell["metadata"].get("tags", [])


def run(path, folder, before=""):
    """Run a notebook's cells, except the one that installs, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", before + RUN, str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_three_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["look_inside", "quickstart", "two_devices"]


@every
def test_cells_define_nothing(path):
    for cell in cells(path):
        if not is_install(cell):
            defined = [n for n in ast.walk(ast.parse(source(cell))) if isinstance(n, DEFINITIONS)]
            assert defined == [], source(cell)


@every
def test_outputs_are_stripped_and_metadata_minimal(path):
    book = json.loads(path.read_text())
    assert set(book) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert cell["metadata"] in ({}, {"tags": ["install"]})


@every
def test_no_path_of_a_machine_is_in_it(path):
    assert re.findall(r"(?<![\w.:/])(?:/[a-z]\w*/|[A-Z]:\\|~)\S*", path.read_text()) == []


@every
def test_one_cell_installs_and_the_others_are_plain_python(path):
    first, *rest = cells(path)
    assert is_install(first)
    assert source(first) == source(cells(NOTEBOOKS[0])[0])
    for cell in rest:
        assert not is_install(cell)
        assert not MAGIC.search(source(cell)), source(cell)


def test_the_install_cell_names_every_dependency():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    dependencies = {line.partition(">")[0] for line in project["dependencies"]}
    text = source(cells(NOTEBOOKS[0])[0]).replace("\\\n", " ")
    (line,) = re.findall(r"--constraint present\.txt\s+(.*)", text)
    assert {word.strip('"').partition(">")[0] for word in line.split()} == dependencies


@every
def test_links_to_files_hold(path):
    for text in map(source, cells(path, "markdown")):
        for name in re.findall(r"`(\w+\.ipynb)`", text):
            assert (path.parent / name).exists()
        for name in re.findall(r"`(experiments/\S+)`", text):
            assert (CHECKOUT / name).exists()


def test_a_cell_that_raises_is_noticed(tmp_path):
    book = json.loads(NOTEBOOKS[0].read_text())
    book["cells"] = [
        {"cell_type": "code", "metadata": {}, "source": ["import asyncio\n", "print('ran')\n"]},
        {"cell_type": "markdown", "metadata": {}, "source": ["not Python"]},
        {"cell_type": "code", "metadata": {"tags": ["install"]}, "source": ["%pip install x"]},
        {"cell_type": "code", "metadata": {}, "source": ["asyncio.get_running_loop()\n"]},
        {"cell_type": "code", "metadata": {}, "source": ["raise ValueError('bad cell')"]},
    ]
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps(book))
    ended = run(path, tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == "ran\n"
    assert ended.stderr.endswith("ValueError: bad cell\n")
    assert f'File "cell 4 of {path}", line 1' in ended.stderr


PROVIDED = """
import sys
import jax
from alexnet_jax.cli.devices import provide_devices
if sys.argv[1] == "computed before":
    assert jax.device_count() == 1
provide_devices(8)
print(jax.device_count())
provide_devices(3)
print(jax.device_count(), jax.numpy.ones(2).sum())
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["fresh", "computed before"])
def test_a_kernel_gets_at_least_as_many_devices_as_it_requests(before):
    done = subprocess.run(
        [sys.executable, "-c", PROVIDED, before], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "8\n8 2.0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder that all notebooks run in: the later ones use the run of the first."""
    return tmp_path_factory.mktemp("notebooks")


WRITTEN = {
    "quickstart": [
        *("quickstart/summary.json", "quickstart/figures/curves.png"),
        *("quickstart/figures/filters.png", "quickstart/figures/predictions.png"),
        "figures/predicted.png",
    ],
    "two_devices": ["figures/network.png", "figures/pair.png", "figures/pairs.png"],
    "look_inside": [
        *("figures/filters.png", "figures/specialization.png", "figures/relu1.png"),
        *("figures/relu2.png", "figures/neighbors.png"),
    ],
}
PRINTED = {
    "quickstart": ["2 cpu devices, one tower each", "epoch   1", "Test error"],
    "two_devices": ["8 devices", "[2, 128, 1, 1, 6]", "gradient of fc8's bias"],
    "look_inside": ["is finished", "towers", "0.03"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_it_runs_from_top_to_bottom(name, folder):
    ended = run(CHECKOUT / f"notebooks/{name}.ipynb", folder, SHRINK)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for text in PRINTED[name]:
        assert text in ended.stdout
    for file in WRITTEN[name]:
        assert (folder / "runs" / file).stat().st_size > 0
