"""The READMEs: every command in them runs, every option, file, link and count holds."""

import dataclasses
import importlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import __main__ as package
from alexnet_jax import main as training
from alexnet_jax.cli.arguments import options
from alexnet_jax.config import Config
from alexnet_jax.data import synthetic
from alexnet_jax.fidelity.facts import describe_network
from alexnet_jax.model.architecture import trace
from alexnet_jax.model.variants import build_architecture
from alexnet_jax.presets import FITTED, PRESETS, Recipe
from alexnet_jax.storage.digest import file_sha256
from alexnet_jax.weights import published
from tests import foreign
from tests.data.test_prepare import toy
from tests.weights.test_pretrained import CLASSES as IMPORTED
from tests.weights.test_pretrained import random_set
from tests.weights.test_published import write_torchvision

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHECKOUT = Path(__file__).parents[1]
TOP = CHECKOUT / "README.md"
ROOMS = ("data", "model", "training", "inference", "weights")
READMES = [
    TOP,
    *(CHECKOUT / "alexnet_jax" / room / "README.md" for room in ROOMS),
    CHECKOUT / "experiments" / "README.md",
]
COMMANDS = {f"alexnet_jax.{name}" for name in package.COMMANDS}
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}((?:python|mkdir) .*)$", re.MULTILINE)
OTHER_PROGRAMS = {"--ntasks-per-node", "--gpus-per-node", "--worker", "--command", "--logdir"}
# Commands that are not run, by how they begin, and why.
EXEMPT = {
    "pip install": ".ci/run installs, in an environment of its own",
    "pytest": ".ci/run runs the tests",
}
# The list of commands, and how one is named in it: test_main tests both.
LISTED = ("python -m alexnet_jax", "python -m alexnet_jax.NAME")
# Commands for machines that this is not: what follows `python -m` must parse.
CLUSTER = ("srun", "gcloud")

readme = pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """Yield where each fenced block of a language begins, and its content."""
    for match in FENCED.finditer(text):
        if match[1] == language:
            yield match.start(), match[2]


def without_blocks(text: str) -> str:
    return FENCED.sub(lambda block: " " * len(block[0]), text)


def commands(path: Path) -> list[str]:
    """Return the commands of a README in their order, each in one line.

    They are the lines of sh blocks and of indented ones, and `python ...` in the text. A block of
    Python counts as one command, which begins with "import" or "from".
    """
    text = path.read_text()
    prose = without_blocks(text)
    positions = list(blocks(text, "python"))
    lines = [(start, block) for start, block in blocks(text, "sh")]
    lines += [(match.start(), match[1]) for match in INDENTED.finditer(prose)]
    lines += [
        (match.start(), " ".join(match[1].split()))
        for match in re.finditer(r"`(python [^`]+)`", prose)
    ]
    for start, block in lines:
        for line in block.replace("\\\n", " ").splitlines():
            parts = " ".join(shlex.split(line, comments=True, posix=False)).split(" && ")
            positions += [(start, part) for part in parts if part]
    return [command for _, command in sorted(positions, key=lambda item: item[0])]


def all_commands() -> list[str]:
    """Return the commands of all READMEs, each once."""
    return list(dict.fromkeys(command for path in READMES for command in commands(path)))


def kind(command: str) -> str:
    """Return how a command is tested; an AssertionError for one that has no rule."""
    words = command.split()
    if any(command.startswith(start) for start in EXEMPT) or command in LISTED:
        return "exempt"
    if words[0] in CLUSTER or "--distributed.coordinator" in words:
        return "parsed"
    if words[0] in ("import", "from"):
        return "code"
    if words[0] in ("mkdir", "cp"):
        return "shell"
    if words[:2] == ["python", "-m"] and words[2] in COMMANDS:
        return "command"
    is_script = words[0] == "python" and (CHECKOUT / words[1]).is_file()
    assert is_script, f"no rule in {__name__} for a README's command: {command}"
    return "long script" if "--data" in words else "script"


def test_every_readme_is_covered():
    assert set(READMES) == {
        *(TOP, CHECKOUT / "experiments" / "README.md"),
        *CHECKOUT.glob("alexnet_jax/*/README.md"),
    }
    assert len(TOP.read_text().splitlines()) <= 150


def test_there_is_a_rule_for_every_command():
    with_rules = all_commands()
    assert {kind(command) for command in with_rules} == {
        *("exempt", "parsed", "code", "shell", "command", "script", "long script")
    }
    with pytest.raises(AssertionError, match="no rule in"):
        kind("make all")
    for name in COMMANDS:
        assert any(command.startswith(f"python -m {name} ") for command in with_rules), name


def test_the_first_block_installs_trains_and_tests():
    _, block = next(blocks(TOP.read_text(), "sh"))
    assert [line.split() for line in block.splitlines()] == [
        ["pip", "install", ".", "&&", "python", "-m", "alexnet_jax.main", "--workdir", "runs/a"],
        ["pip", "install", "'.[test]'", "&&", "pytest"],
    ]


def test_every_option_belongs_to_some_command():
    known = {"--help", *OTHER_PROGRAMS}
    for module in COMMANDS:
        known |= set(options(importlib.import_module(module).Command))
    for path in (CHECKOUT / "experiments").rglob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', path.read_text()))
    for command in map(str.split, all_commands()):
        if kind(" ".join(command)) in ("script", "long script"):
            known |= set(re.findall(r"--[a-z-]+", script([command[1], "--help"])))
    text = "\n".join(path.read_text() for path in READMES)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text))
    assert len(named) > 50
    assert named - known == set()


def test_every_file_of_the_tree_exists_and_every_room_is_in_the_tree():
    (tree,) = (text for _, text in blocks(TOP.read_text(), "") if text.startswith("alexnet_jax/\n"))
    room, named, files = Path(), set(), set()
    for line in tree.splitlines():
        if folder := re.match(r"( *)([\w/]+)/( |$)", line):
            room = Path("alexnet_jax") / folder[2] if folder[1] else Path(folder[2])
            assert (CHECKOUT / room).is_dir(), room
            named.add(room.as_posix())
        for file in re.findall(r"[\w/]+\.(?:py|md)\b", line):
            assert (CHECKOUT / room / file).is_file(), f"{room}/{file}"
            files.add(f"{room}/{file}")
    for notebook in re.findall(r"\w+", tree.partition("\nnotebooks/")[2].partition("\n")[0]):
        assert (CHECKOUT / f"notebooks/{notebook}.ipynb").is_file(), notebook
    rooms = {path.parent.relative_to(CHECKOUT) for path in CHECKOUT.glob("alexnet_jax/*/*.py")}
    assert {path.as_posix() for path in rooms} <= named
    top = {path.relative_to(CHECKOUT).as_posix() for path in CHECKOUT.glob("alexnet_jax/[!_]*.py")}
    assert files >= top


@readme
def test_every_module_that_is_named_exists(path: Path):
    """Paths are relative to the README's folder or one in it, the package or the checkout."""
    roots = (path.parent, CHECKOUT / "alexnet_jax", CHECKOUT, *path.parent.glob("*/"))
    for name in re.findall(r"`([\w/]+\.py)`", path.read_text()):
        assert any((root / name).is_file() for root in roots), name


def heads(text: str) -> set[str]:
    """Return the headings of a text as the ends of links."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@readme
def test_every_link_leads_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in heads(linked.read_text()), target


def test_the_table_of_networks_has_every_preset_and_its_parameters():
    counts = {}
    for names, numbers in re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ([\d, ]+) \|", TOP.read_text(), re.MULTILINE
    ):
        parameters = re.findall(r"\d{1,3}(?:,\d{3})+", numbers)
        parameters = [int(number.replace(",", "")) for number in parameters]
        counts |= dict(zip(re.findall(r"\w+", names), parameters, strict=True))
    expected = {}
    for name, config in PRESETS.items():
        classes = len(synthetic.CLASS_NAMES) if config.data.source == "synthetic" else 1000
        rows = trace(build_architecture(config.model, classes, config.data.crop))
        expected[name] = sum(row.parameters for row in rows)
    assert counts == expected


def test_the_number_of_points_is_that_of_describe():
    (points,) = re.findall(r"(\d+) points", TOP.read_text())
    assert int(points) == len(describe_network(PRESETS["paper"], classes=1000)["comparison"])


def tiny(config: Config) -> Config:
    """Return a preset with few maps, small batches and one epoch; its images stay as large."""
    crop = config.data.crop if config.data.source == "synthetic" else min(config.data.crop, 99)
    data = dataclasses.replace(config.data, crop=crop, images_per_crop=1, threads=0)
    return dataclasses.replace(
        config,
        data=data,
        model=dataclasses.replace(config.model, width=0.03),
        optimizer=dataclasses.replace(config.optimizer, batch_size=4),
        schedule=dataclasses.replace(config.schedule, epochs=1, milestones=()),
    )


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    Image.fromarray(pixels).resize((140, 120)).save(path)


@pytest.fixture
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with the files that the READMEs' commands name; all presets are tiny."""
    for name, config in PRESETS.items():
        monkeypatch.setitem(PRESETS, name, tiny(config))
    for name in FITTED:
        monkeypatch.setitem(FITTED, name, (Recipe(0, 32, epochs=1, at_least=1, size=None),))
    for split in synthetic.SIZES:
        monkeypatch.setitem(synthetic.SIZES, split, 40)
    monkeypatch.chdir(tmp_path)
    toy(tmp_path / "ILSVRC2012")
    names = [f"n{number:08d} thing {number}, object" for number in range(IMPORTED)]
    Path("names.txt").write_text("\n".join(names) + "\n")
    folders = {"DIR": synthetic.CLASS_NAMES[:2], "OTHER": synthetic.CLASS_NAMES[:2]}
    folders["ILSVRC2012_val_by_class"] = tuple(name.split()[0] for name in names[:2])
    for seed, (folder, classes) in enumerate(folders.items()):
        for number in range(12):
            draw(Path(folder, classes[number % 2], f"{number}.png"), 100 * seed + number)
    for seed, file in enumerate(("photo.jpg", "a.jpg", "b.jpg", "folder/c.png"), 1000):
        draw(Path(file), seed)
    shutil.copytree(CHECKOUT / "experiments" / "records", "experiments/records")
    # Small enough that training does not end in infinities.
    quiet = {name: 0.05 * array for name, array in random_set("torchvision").items()}
    foreign.write_torch_zip(
        Path("alexnet-owt-7be5be79.pth"), {n: a.astype("f4") for n, a in quiet.items()}
    )
    monkeypatch.setenv("ALEXNET_JAX_CACHE", str(tmp_path / "cache"))
    write_torchvision(Path("published.pth"))
    sha256 = file_sha256(Path("published.pth"))
    entry = dataclasses.replace(published.PUBLISHED["torchvision"], digest=sha256)
    monkeypatch.setitem(published.PUBLISHED, "torchvision", entry)
    entry.folder.mkdir(parents=True)
    shutil.move("published.pth", entry.path)
    by_layer: dict[str, list[np.ndarray]] = {}
    for name, array in random_set("tensorflow").items():
        by_layer.setdefault(name.rpartition("_")[0], []).append(array)
    foreign.write_npy_python2(Path("bvlc_alexnet.npy"), by_layer)


def call(command: str) -> int:
    """Run a command in this process; return its exit code."""
    _, _, module, *arguments = shlex.split(command)
    run = importlib.import_module(module).main
    try:
        return run(arguments)
    except SystemExit as stopped:  # --help
        return int(stopped.code or 0)


def parse(command: str) -> None:
    """Parse the options of a training command for several machines, and do nothing else."""
    _, _, after = command.partition("python -m alexnet_jax.main ")
    training.parse(shlex.split(after.rstrip('"')))


def script(words: list[str]) -> str:
    """Run a script as a process of its own; return what it prints."""
    file, *arguments = words
    ended = subprocess.run(
        [sys.executable, str(CHECKOUT / file), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{words}: {ended.stderr}"
    return ended.stdout


def check_options(words: list[str]) -> None:
    """Check that a script, which would run for hours, has the options of a command."""
    printed = script([words[0], "--help"])
    for option in (word for word in words if word.startswith("--")):
        assert option in printed, f"{words[0]} {option}"


def code(text: str) -> None:
    Path("code.py").write_text(text)
    runpy.run_path("code.py")


@pytest.mark.slow
@pytest.mark.usefixtures("_surroundings")
def test_every_command_runs(capsys):
    for command in all_commands():
        if "runs/b" in command and not Path("runs/b").exists():
            shutil.copytree("runs/a", "runs/b")
        match kind(command):
            case "parsed":
                parse(command)
            case "code":
                code(command)
            case "shell":
                subprocess.run(shlex.split(command), check=True)
            case "script":
                script(shlex.split(command)[1:])
            case "long script":
                check_options(shlex.split(command)[1:])
            case "command":
                status = call(command)
                assert status == 0, f"{command}: exit code {status}; {capsys.readouterr().err}"
        assert "Traceback" not in capsys.readouterr().err, command
        for picture in re.findall(r"\S+\.png\b", command):
            with Image.open(picture) as image:
                assert image.width > 100, command
