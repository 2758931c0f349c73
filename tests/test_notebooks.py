"""The notebooks: cells only call the package, hold no outputs, and run from top to bottom."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

CHECKOUT = Path(__file__).parents[1]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
MAGIC = re.compile(r"^\s*[%!]", re.MULTILINE)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

# A kernel runs cells while an event loop runs, and so does this.
RUN = """
import asyncio, json, sys, types

sys.modules["ipykernel"] = types.ModuleType("ipykernel")  # as in a kernel

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


@pytest.fixture
def cell_file(tmp_path):
    """Return a script with the install cell."""
    file = tmp_path / "cell.py"
    file.write_text(source(cells(NOTEBOOKS[0])[0]))
    return file


def install(cell_file, monkeypatch, packages, returncode=0, jax_imported=False):
    """Run the install cell as if only `packages` were installed; return its pip's arguments.

    pip is not started: it ends with `returncode`, and afterwards jax 0.11.2 is there.
    """
    calls = []

    def pip(arguments, **_):
        calls.append(arguments)
        return subprocess.CompletedProcess(arguments, returncode, "", "pip's messages")

    before = [SimpleNamespace(name=name, version=packages[name]) for name in packages]
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        patch.setattr("importlib.metadata.distributions", lambda: before)
        patch.setattr("importlib.metadata.version", {"jax": "0.11.2"}.get)
        patch.setattr("subprocess.run", pip)
        if not jax_imported:
            patch.delitem(sys.modules, "jax", raising=False)
        runpy.run_path(str(cell_file))
    (arguments,) = calls
    assert arguments[:5] == [sys.executable, "-m", "pip", "install", "--quiet"]
    return arguments[5:]


@pytest.mark.parametrize(
    ("plugin", "requirement"),
    [
        ({}, "jax"),
        ({"jax-cuda12-plugin": "0.7.2"}, "jax[cuda12]"),
        ({"jax-cuda13-plugin": "0.7.2"}, "jax[cuda13]"),
        ({"libtpu": "0.0.21.1"}, "jax[tpu]"),
    ],
)
def test_the_install_cell_keeps_numpy_and_the_plugin(
    cell_file, monkeypatch, capsys, plugin, requirement
):
    packages = {"jax": "0.7.2", "protobuf": "5.29.6", "scipy": "1.16.3", "numpy": "2.1.3", **plugin}
    kept = ["numpy==2.1.3", "protobuf==5.29.6"]
    assert install(cell_file, monkeypatch, packages) == [*kept, requirement, ".."]
    line = f"Installed .. with {requirement} 0.11.2 (before: 0.7.2); kept {' '.join(kept)}\n"
    assert capsys.readouterr().out == f"pip's messages\n{line}"


def test_the_install_cell_stops_with_one_sentence(cell_file, monkeypatch):
    with pytest.raises(SystemExit, match=r"^jax is already imported: restart [^\n]*\.$"):
        install(cell_file, monkeypatch, {"jax": "0.7.2"}, jax_imported=True)
    with pytest.raises(SystemExit, match=r"^pip could not install jax and \.\.: [^\n]*\.$"):
        install(cell_file, monkeypatch, {}, returncode=1)


def test_the_install_cell_does_nothing_if_the_package_is_installed(cell_file, monkeypatch, capsys):
    monkeypatch.setattr("subprocess.run", None)
    runpy.run_path(str(cell_file))
    assert capsys.readouterr().out == ""


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
    "quickstart": ["2 cpu devices, one tower each", "epoch   1", "Test error", "stripes down: "],
    "two_devices": ["8 devices", "[2, 128, 1, 1, 6]", "gradient of fc8's bias"],
    "look_inside": ["is finished", "towers", "0.03"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_it_runs_from_top_to_bottom(name, folder):
    ended = run(CHECKOUT / f"notebooks/{name}.ipynb", folder, SHRINK)
    assert ended.returncode == 0, ended.stderr[-3000:]
    # A notebook shows this in red. One epoch of a shrunk run is rightly called too short.
    assert [line for line in ended.stderr.splitlines() if " steps of " not in line] == []
    for text in PRINTED[name]:
        assert text in ended.stdout
    for file in WRITTEN[name]:
        assert (folder / "runs" / file).stat().st_size > 0
