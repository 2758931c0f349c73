"""The README: every command in it runs, every option, file and link that it names is there."""

import dataclasses
import importlib
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import main as training
from alexnet_jax.cli.arguments import options as _options
from alexnet_jax.config import Config
from alexnet_jax.data import synthetic
from alexnet_jax.presets import PRESETS
from tests import foreign
from tests.data.test_prepare import toy
from tests.weights.test_pretrained import CLASSES as IMPORTED
from tests.weights.test_pretrained import random_set

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()
COMMANDS = {  # modules, and where their `main` and the dataclass of their options are
    f"alexnet_jax.{name}": f"alexnet_jax.{name}{within}"
    for name, within in {
        **dict.fromkeys(("main", "evaluate", "predict", "retrieve", "describe"), ""),
        "data.prepare": "",
        **dict.fromkeys(("figures", "pretrained"), ".__main__"),
    }.items()
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = {"--ntasks-per-node", "--gpus-per-node", "--worker", "--command", "--logdir"}
# What the commands are given in place of what a README can only name, or of what would take long.
SUBSTITUTED = {"--schedule.epochs 20": "--schedule.epochs 2"}
# Commands that are not run, by how they begin, and why.
EXEMPT = {
    "pip install": ".ci/run installs, in an environment of its own",
    "pytest": ".ci/run runs the tests",
}
# Commands for machines that are not there: what follows `python -m` has to parse.
CLUSTER = ("srun", "gcloud")


def blocks(language: str) -> Iterator[tuple[int, str]]:
    """Yield where each fenced block of a language begins, and what is in it."""
    for found in FENCED.finditer(README):
        if found[1] == language:
            yield found.start(), found[2]


def commands() -> list[str]:
    """Return the README's commands in their order: lines of its sh blocks, whole ones in a line.

    A block of Python counts as one, beginning with "import" or "from".
    """
    found = list(blocks("python"))
    for start, block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            parts = " ".join(shlex.split(line, comments=True, posix=False)).split(" && ")
            found += [(start, part) for part in parts if part]
    prose = FENCED.sub(lambda block: " " * len(block[0]), README)
    for span in re.finditer(r"`(python [^`]+)`", prose):
        found.append((span.start(), " ".join(span[1].split())))
    return [command for _, command in sorted(found, key=lambda item: item[0])]


def kind(command: str) -> str:
    """Return how a command is tried; an AssertionError for one that nothing here knows to try."""
    words = command.split()
    if any(command.startswith(start) for start in EXEMPT):
        return "exempt"
    if words[0] in CLUSTER or "..." in words or "--distributed.coordinator" in words:
        return "parsed"
    if words[0] in ("import", "from") or words[:2] == ["python", "-c"]:
        return "code"
    if words[:2] == ["python", "-m"] and words[2] in COMMANDS:
        return "command"
    is_script = words[0] == "python" and (CHECKOUT / words[1]).is_file()
    assert is_script, f"no rule in {__name__} for the README's command: {command}"
    return "script"


def test_there_is_a_rule_for_every_command():
    found = commands()
    assert {kind(command) for command in found} == {
        *("exempt", "parsed", "code", "command", "script")
    }
    with pytest.raises(AssertionError, match="no rule in"):
        kind("make all")
    for name in COMMANDS:
        assert any(command.startswith(f"python -m {name} ") for command in found), name
    assert found[:2] == ["pip install .", "python -m alexnet_jax.main --workdir runs/a"]


def test_every_option_is_one_of_some_command():
    known = {"--help", *OTHERS}
    for module in COMMANDS.values():
        known |= set(_options(importlib.import_module(module).Command))
    scripts = " ".join(
        (CHECKOUT / words[1]).read_text()
        for words in map(str.split, commands())
        if kind(" ".join(words)) == "script"
    )
    known |= set(re.findall(r'"(--[a-z-]+)"', scripts))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", README))
    assert len(named) > 50
    assert named - known == set()


def test_every_file_of_the_tree_is_there_and_every_room_in_the_tree():
    (tree,) = (text for _, text in blocks("") if text.startswith("alexnet_jax/\n"))
    room, named = Path(), set()
    for line in tree.splitlines():
        if folder := re.match(r"( *)([\w/]+)/( |$)", line):
            room = Path("alexnet_jax") / folder[2] if folder[1] else Path(folder[2])
            assert (CHECKOUT / room).is_dir(), room
            named.add(room.as_posix())
        for file in re.findall(r"[\w/]+\.(?:py|md)\b", line):
            assert (CHECKOUT / room / file).is_file(), f"{room}/{file}"
    rooms = {path.parent.relative_to(CHECKOUT) for path in CHECKOUT.glob("alexnet_jax/*/*.py")}
    assert {path.as_posix() for path in rooms} <= named


def heads(text: str) -> set[str]:
    """Return the headings of a text as the ends of links."""
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in found}


def test_every_link_leads_somewhere():
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(targets) > 10
    for target in targets:
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        assert (CHECKOUT / file).exists(), target
        if anchor:
            assert anchor in heads((CHECKOUT / file).read_text() if file else README), target


def tiny(config: Config) -> Config:
    """Return a preset with few maps, small batches and one epoch; its images stay as large."""
    crop = config.data.crop if config.data.source == "synthetic" else 99
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
    """Go to a folder that holds what the README's commands name; all presets are tiny."""
    for name, config in PRESETS.items():
        monkeypatch.setitem(PRESETS, name, tiny(config))
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
    # So quiet that training does not end in infinities.
    quiet = {name: 0.05 * array for name, array in random_set("torchvision").items()}
    foreign.write_torch_zip(Path("alexnet-owt.pth"), {n: a.astype("f4") for n, a in quiet.items()})
    by_layer: dict[str, list[np.ndarray]] = {}
    for name, array in random_set("tensorflow").items():
        by_layer.setdefault(name.rpartition("_")[0], []).append(array)
    foreign.write_npy_python2(Path("bvlc_alexnet.npy"), by_layer)


def call(command: str) -> int:
    """Run a command in this process; return its exit code."""
    _, _, module, *arguments = shlex.split(command)
    run = importlib.import_module(COMMANDS[module]).main
    try:
        return run(arguments)
    except SystemExit as stopped:  # --help
        return int(stopped.code or 0)


def parse(command: str) -> None:
    """Have the options of a training command for several machines read, and do nothing else."""
    _, _, after = command.partition("python -m alexnet_jax.main ")
    arguments = [word for word in shlex.split(after.rstrip('"').replace("...", "runs/a"))]
    training.parse(arguments)


def script(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)[1:]
    monkeypatch.setattr(sys, "argv", [*words, "--figure", ""])
    runpy.run_path(str(CHECKOUT / words[0]), run_name="__main__")


def code(command: str) -> None:
    """Run Python, a block of it or `python -c`."""
    text = shlex.split(command)[2] if command.startswith("python") else command
    Path("code.py").write_text(text)
    runpy.run_path("code.py")


@pytest.mark.slow
@pytest.mark.usefixtures("_surroundings")
def test_every_command_runs(monkeypatch: pytest.MonkeyPatch, capsys):
    for named in commands():
        command = named
        for long, short in SUBSTITUTED.items():
            command = command.replace(long, short)
        if "runs/b" in command and not Path("runs/b").exists():
            shutil.copytree("runs/a", "runs/b")
        match kind(command):
            case "parsed":
                parse(command)
            case "code":
                code(command)
            case "script":
                script(command, monkeypatch)
            case "command":
                status = call(command)
                assert status == 0, f"{command}: exit code {status}; {capsys.readouterr().err}"
        assert "Traceback" not in capsys.readouterr().err, command
        for picture in re.findall(r"\S+\.png\b", command):
            with Image.open(picture) as image:
                assert image.width > 100, command
