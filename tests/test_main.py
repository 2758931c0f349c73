"""The command line: what it takes, what it says, and one sentence for each mistake."""

import ast
import asyncio
import dataclasses
import gc
import inspect
import itertools
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import config as configuration
from alexnet_jax.cli.arguments import option_name
from alexnet_jax.config import Config, flatten
from alexnet_jax.main import main, parse
from alexnet_jax.presets import PRESETS
from alexnet_jax.training import loop

pytestmark = pytest.mark.usefixtures("quick_compilation")


def photos(root, classes):
    """Make a folder of class folders with the given numbers of images."""
    rng = np.random.default_rng(0)
    for name, number in classes.items():
        (root / name).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def refused(capsys, *arguments, code=2):
    """Run a command that is to be refused; return what it said, one sentence on stderr."""
    assert main([str(argument) for argument in arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("alexnet_jax: ")
    assert line.endswith((".", ")"))
    return line.removeprefix("alexnet_jax: ")


@pytest.fixture
def workdir(tmp_path):
    """Return where a run would go; nothing may be there when it was refused."""
    yield tmp_path / "runs" / "a"
    assert not (tmp_path / "runs").exists()


BAD = [
    # option, value, rule, remedy
    ("--seed", "-1", "between 0 and 2**31 - 1", "try 0"),
    ("--data.image-size", "0", "at least 1 pixel", "try 256"),
    ("--data.crop", "0", "between 1 and --data.image-size=72", "try 63"),
    ("--data.crop", "73", "between 1 and --data.image-size=72", "try 63"),
    ("--data.crop", "35", "at least 1 x 1 pixel", "the smallest crop that would do is 36"),
    ("--data.pca-std", "-0.1", "not negative", "use 0 to switch it off"),
    ("--data.validation-fraction", "1.0", "at least 0 and below 1", "try 0.1"),
    ("--data.cache-gib", "-1.0", "not negative", "use 0 to keep nothing"),
    ("--data.threads", "-1", "not negative", "use 0 to read in the main thread"),
    ("--data.prefetch", "0", "at least 1 batch", "try 4"),
    ("--model.width", "0.0", "positive", "try 1, the width of 2012"),
    ("--model.conv345-init-std", "0.0", "positive", "try 0.01"),
    ("--model.lrn-alpha", "-0.1", "not negative", "try 0.0001"),
    ("--model.dropout", "1.0", "at least 0 and below 1", "try 0.5"),
    ("--optimizer.batch_size-size", "0", "at least 1 image", "try 128"),
    ("--optimizer.learning-rate", "0.0", "positive", "try 0.01"),
    ("--optimizer.bias-lr-multiplier", "-1.0", "not negative", "try 1"),
    ("--optimizer.momentum", "1.0", "at least 0 and below 1", "try 0.9"),
    ("--optimizer.weight-decay", "-1.0", "not negative", "try 5e-4"),
    ("--schedule.epochs", "0", "at least 1", "try 90"),
    ("--schedule.factor", "1.0", "between 0 and 1", "try 0.1"),
    ("--schedule.max-drops", "-1", "not negative", "try 3"),
    ("--schedule.patience", "0", "at least 1 look", "try 5"),
    ("--schedule.min-delta", "1.0", "at least 0 and below 1", "try 0.002"),
    ("--schedule.eval-every", "0", "at least 1 epoch", "try 1"),
    ("--mesh.towers", "3", "1, 2 or auto", "use auto"),
    ("--mesh.data", "0", "at least 1 or auto", "use auto"),
    ("--log.every", "0", "at least 1 step", "try 20"),
    ("--log.checkpoint-every", "0", "at least 1 step", "try 1000"),
    ("--optimizer.learning-rate", "inf", "finite number", "see --help"),
    ("--model.width", "inf", "finite number", "see --help"),
    ("--optimizer.batch_size-size", "4001", "there are 4000 training images", "try 2048"),
    ("--preset", "papers", "one of quickstart, photos, paper, source2012", "use one of them"),
    ("--data.images-per-crop", "0", "at least 1 image", "try 1"),
    ("--data.train-divisor", "0.0", "positive", "try 1"),
    ("--data.pca-epochs", "-1", "not negative", "use 0 for all epochs"),
    ("--model.init-std", "0.0", "positive", "try 0.01"),
    ("--model.lrn-n", "4", "odd and positive", "try 5"),
    ("--model.lrn-k", "0.0", "positive", "try 2"),
    ("--model.bottleneck", "3", "an even number of units", "use 0 for none"),
    (
        "--optimizer.layer-learning-rates",
        "fc8",
        "a layer, = and a multiple of the rate",
        "try conv1=0 fc8=10",
    ),
    ("--optimizer.layer-learning-rates", "fc8=-1", "not negative", "try conv1=0 fc8=10"),
    ("--optimizer.layer-learning-rates", "fc8=nan", "a multiple of the rate", "try conv1=0 fc8=10"),
    (
        "--optimizer.layer-learning-rates",
        "fc9=2",
        "names a layer of the network, conv1, conv2",
        "name some of them",
    ),
    ("--optimizer.bias-lr-drops", "-1", "at least 0 or all", "use all"),
    ("--profile.steps", "9:3", "the first and the last step", "try 10:15"),
    ("--profile.steps", "0:3", "from 1 on", "try 10:15"),
    ("--schedule.slow-conv1", "-1", "not negative", "use 0 for never"),
    ("--schedule.freeze-conv1", "-1", "not negative", "use 0 for never"),
    ("--init-from", "nowhere", "No such file or directory (config.json)", "the folder of a run"),
]


@pytest.mark.parametrize(
    ("name", "value", "rule", "remedy"), BAD, ids=[f"{name} {value}" for name, value, *_ in BAD]
)
def test_a_value_that_will_not_do(name, value, rule, remedy, workdir, capsys):
    said = refused(capsys, "--workdir", workdir, name, value)
    assert said.startswith(f"{name} {value}: ")
    assert rule in said
    assert remedy in said


def test_a_path_that_nothing_reads(workdir, capsys):
    said = refused(capsys, "--workdir", workdir, "--data.path", "photos")
    assert "--data.path photos: the embedded data set is drawn" in said
    assert "add --preset photos" in said


def test_splits_in_capitals(tmp_path, workdir, capsys):
    root = photos(tmp_path / "photos/Train", {"cats": 3, "dogs": 3}).parent
    photos(root / "Val", {"cats": 3, "dogs": 3})
    said = refused(capsys, "--workdir", workdir, *of_folder(root))
    assert said.endswith("it holds Train, Val; splits are named in small letters: rename them.")


def test_drops_that_do_not_rise(workdir, capsys):
    said = refused(capsys, "--workdir", workdir, "--schedule.milestones", 9, 5)
    assert (
        said
        == "--schedule.milestones (9, 5): it is a rising list of epochs from 1 on; try 23 51 78."
    )


def test_a_source_without_its_folder_or_name(workdir, capsys):
    said = refused(capsys, "--workdir", workdir, "--data.source", "folder")
    assert said == "--data.path '': it is needed by --data.source folder; name the folder."
    assert refused(capsys, "--workdir", workdir, "--preset", "photos") == said
    said = refused(capsys, "--workdir", workdir, "--data.source", "tfds")
    assert said == "--data.name '': it is needed by --data.source tfds; name the data set."


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("--data.corp", "--data.crop"),
        ("--optimizer.batch_size-size=5", "--optimizer.batch_size-size"),
        ("--work-dir", "--workdir"),
        ("--presets", "--preset"),
        ("--model", "--preset"),
        ("--lr", "--optimizer.learning-rate"),
        ("--batch_size", "--optimizer.batch_size-size"),
        ("--epochs", "--schedule.epochs"),
        ("--log.chekpoint-every", "--log.checkpoint-every"),
    ],
)
def test_an_unknown_option_names_the_nearest(wrong, nearest, workdir, capsys):
    said = refused(capsys, "--workdir", workdir, wrong, "5")
    name = wrong.partition("=")[0]
    assert (
        said == f"{name}: there is no such option; the nearest is {nearest} (see --help for all)."
    )


@pytest.mark.parametrize("terminal", ["", "xterm-256color"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data.crop", "abc"], ["--data.crop", "int", "'abc'"]),
        (["--optimizer.learning-rate", "fast"], ["--optimizer.learning-rate", "float", "'fast'"]),
        (["--data.source", "web"], ["'--data.source'", "'web'", "'embedded', 'folder'"]),
        (
            ["--data.horizontal-flip", "yes"],
            ["'--data.horizontal-flip'", "'yes'", "'True', 'False'"],
        ),
        (["--schedule.milestones", "a", "b"], ["--schedule.milestones", "'a', 'b'"]),
        (["--data.crop"], ["'--data.crop'", "Missing value"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_value_of_the_wrong_kind(arguments, parts, terminal, workdir, capsys, monkeypatch):
    monkeypatch.setenv("TERM", terminal)
    said = refused(capsys, "--workdir", workdir, *arguments)
    assert all(part in said for part in parts), said
    assert said.endswith("; see --help.")
    assert said.isprintable()


@pytest.mark.parametrize("arguments", [[], ["--seed", "1"]])
def test_no_workdir(arguments, capsys):
    said = refused(capsys, *arguments)
    assert said == (
        "Needed as well: --workdir (folder of the run: checkpoints, metrics, figures; made where "
        "missing); see --help."
    )


def test_the_batch_must_divide_into_the_shards(workdir, capsys):
    arguments = ["--mesh.towers", 1, "--mesh.data", 4, "--optimizer.batch_size-size", 126]
    said = refused(capsys, "--workdir", workdir, *arguments)
    assert said == (
        "--optimizer.batch_size-size 126: it must be divisible by the 4 data shards of the mesh; try 128."
    )


def test_more_devices_than_there_are(workdir, capsys):
    said = refused(capsys, "--workdir", workdir, "--mesh.data", 16, "--mesh.towers", 2)
    assert said == (
        "--mesh.data 16 x --mesh.towers 2: they need 32 devices and there are 4 (cpu); use auto."
    )


def of_folder(root):
    return ["--data.source", "folder", "--data.path", root]


def test_a_folder_that_is_missing(workdir, tmp_path, capsys):
    said = refused(capsys, "--workdir", workdir, *of_folder(tmp_path / "nowhere"))
    assert said.startswith(f"{tmp_path / 'nowhere'}: No such file or directory; ")
    assert "correct the path or the permissions" in said


def test_a_folder_without_class_folders(workdir, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    said = refused(capsys, "--workdir", workdir, *of_folder(tmp_path / "photos"))
    assert said.startswith(f"{tmp_path / 'photos'}: it holds no class folders; ")
    assert "the images of each class lie in a folder of its own" in said


def test_an_empty_class(workdir, tmp_path, capsys):
    root = photos(tmp_path / "photos", {"cats": 2, "dogs": 0, "owls": 2})
    said = refused(capsys, "--workdir", workdir, *of_folder(root))
    assert said.startswith(f"{root / 'dogs'}: this class folder holds no images; ")
    assert "add images, or remove the folder" in said


def test_one_class_only(workdir, tmp_path, capsys):
    root = photos(tmp_path / "photos", {"cats": 4})
    said = refused(capsys, "--workdir", workdir, *of_folder(root))
    assert said.startswith(f"{root}: it has one class only (cats); ")
    assert "add another" in said


def test_nothing_is_left_to_read(tmp_path, capsys):
    root = photos(tmp_path / "photos", {"cats": 3, "dogs": 3})
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    batch = ["--optimizer.batch_size-size", "2"]
    assert main(["--workdir", str(tmp_path / "run"), *map(str, of_folder(root)), *batch]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "None of the 4 training images can be read" in line
    assert "check the files" in line


def test_a_workdir_that_cannot_be_written_to(tmp_path, capsys):
    # Below a regular file nobody can make a folder, root included.
    (tmp_path / "file").write_text("")
    said = refused(capsys, "--workdir", tmp_path / "file" / "run")
    assert said.startswith(f"--workdir {tmp_path / 'file' / 'run'}: ")
    assert "Not a directory" in said
    assert "name one that may be written to" in said
    said = refused(capsys, "--workdir", tmp_path / "file")
    assert said.startswith(f"--workdir {tmp_path / 'file'}: ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("")
    said = refused(capsys, "--workdir", tmp_path / "run")
    assert "File exists" in said
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_without_permission(tmp_path, capsys, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "run/checkpoints/x"))

    monkeypatch.setattr("tempfile.TemporaryFile", deny)
    said = refused(capsys, "--workdir", tmp_path / "run")
    assert said.startswith(f"--workdir {tmp_path / 'run'}: ")
    assert "Permission denied; a run writes to its folder: name one" in said


def test_other_ends_have_their_own_codes(tmp_path, capsys, monkeypatch):
    for error, code, words in [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (FloatingPointError("step 3: the loss is nan."), 1, "step 3: the loss is nan."),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ]:

        def end(*_, error=error):
            raise error

        monkeypatch.setattr(loop, "train_and_evaluate", end)
        assert main(["--workdir", str(tmp_path)]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_of_writes_that_fail_at_once_one_is_told(tmp_path, capsys, caplog, monkeypatch):
    async def write(name):
        raise ValueError(f"{name} could not be written.")

    async def save():  # as Orbax does: nobody asks the second task how it ended
        await next(asyncio.as_completed([asyncio.ensure_future(write("a")) for _ in "ab"]))

    monkeypatch.setattr(loop, "train_and_evaluate", lambda *_, **__: asyncio.run(save()))
    logging.getLogger("asyncio").setLevel(logging.NOTSET)
    assert main(["--workdir", str(tmp_path)]) == 2
    gc.collect()  # asyncio tells of a task when it is let go
    assert caplog.records == []
    assert capsys.readouterr().err == "alexnet_jax: a could not be written.\n"


def arguments_of(config):
    """Return every field as the command line takes it."""
    arguments = []
    for name, value in flatten(config).items():
        values = value if isinstance(value, list) else [value]
        arguments += [option_name(name), *map(str, values)]
    return arguments


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_starting_point_for_every_field(preset):
    assert parse(["--workdir", "a", "--preset", preset]).config == PRESETS[preset]
    assert parse([f"--preset={preset}", "--workdir=a"]).config == PRESETS[preset]
    changed = parse(["--workdir", "a", "--preset", preset, "--data.crop", "63"])
    assert changed.workdir == Path("a")
    before, after = flatten(PRESETS[preset]), flatten(changed.config)
    assert {name for name in before if before[name] != after[name]} == {"data.crop"}


def test_the_last_preset_counts_and_the_default_is_quickstart():
    assert parse(["--workdir", "a"]).config == PRESETS["quickstart"]
    twice = ["--preset", "photos", "--workdir", "a", "--preset", "quickstart"]
    assert parse(twice).config == PRESETS["quickstart"]


def test_every_field_can_be_given():
    photos = PRESETS["photos"]
    config = dataclasses.replace(
        photos,
        seed=7,
        data=dataclasses.replace(
            photos.data, horizontal_flip=False, pca_std=0.25, path="my photos"
        ),
        schedule=dataclasses.replace(photos.schedule, milestones=(1, 2)),
        mesh=dataclasses.replace(photos.mesh, towers=1, data="auto"),
    )
    arguments = ["--workdir", "a", *arguments_of(config)]
    assert parse(arguments).config == config
    # And from another preset's defaults, so that no value above came from the preset alone.
    at = arguments.index("--preset")
    arguments[at : at + 2] = ["--preset", "quickstart"]
    given = parse(arguments).config
    assert dataclasses.replace(given, preset="photos") == config


def fields():
    """Yield (option, default, comment) of every field, the comments from config.py's own text."""
    defaults = flatten(PRESETS["quickstart"])
    text = inspect.getsource(configuration)
    lines = text.splitlines()
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    for name, default in defaults.items():
        section, _, field = name.rpartition(".")
        node = classes[f"{section.capitalize()}Config" if section else "Config"]
        (line,) = [
            part.lineno - 1
            for part in node.body
            if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == field
        ]
        above = itertools.takewhile(lambda text: text.startswith("    # "), lines[line - 1 :: -1])
        yield option_name(name), default, " ".join(text[6:] for text in reversed(list(above)))


def help_of(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    return re.sub(r"[\s│|]+", "", said.out)


def test_help_shows_every_field_with_its_default_and_its_source(capsys, monkeypatch):
    text = help_of([], capsys, monkeypatch)
    seen = list(fields())
    assert len(seen) == len(flatten(Config()))
    for name, default, comment in seen:
        assert re.search(r"\bours\b|\bP\d(\.\d)?\b|2012 code", comment), name
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        shown = shlex.quote(default) if isinstance(default, str) else shown
        entry = text[text.index(name) :]
        described = re.sub(r"\s", "", f"{comment} (default: {shown})")
        assert described in entry[: len(described) + 100], name
    assert "--workdirPATHfolderoftherun:" in text


def test_help_after_a_preset_shows_its_defaults(capsys, monkeypatch):
    text = help_of(["--preset", "photos"], capsys, monkeypatch)
    assert "P4.1(default:224)" in text
    assert "(default:photos)" in text


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_itself(tmp_path):
    ended = run("-m", "alexnet_jax.main", "--workdir", str(tmp_path / "a"), "--data.corp", "40")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        "alexnet_jax: --data.corp: there is no such option; the nearest is --data.crop "
        "(see --help for all).\n"
    )
    assert not (tmp_path / "a").exists()


COUNT = """
import json, sys
from alexnet_jax import main
arguments, first = json.loads(sys.argv[1])
import jax
if first:
    jax.devices()  # as in a notebook that has computed something before
main.emulate_devices(main.parse(["--workdir", "a", *arguments]).config.mesh)
print(jax.device_count())
"""


@pytest.mark.parametrize(
    ("arguments", "environment", "computed_before", "devices"),
    [
        ([], {}, False, 2),
        (["--mesh.towers", "1"], {}, False, 1),
        (["--mesh.data", "3"], {}, False, 6),
        ([], {"JAX_NUM_CPU_DEVICES": "4"}, False, 4),
        ([], {}, True, 1),
    ],
)
def test_a_cpu_poses_as_the_devices_that_the_mesh_wants(
    arguments, environment, computed_before, devices
):
    ended = run("-c", COUNT, json.dumps([arguments, computed_before]), **environment)
    assert ended.stderr == ""
    assert ended.stdout == f"{devices}\n"
