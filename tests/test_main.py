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
    """Run a command that is refused; return its one sentence on stderr."""
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
    # option, value, remedy
    ("--seed", "-1", "try 0"),
    ("--data.image-size", "0", "try 256"),
    ("--data.crop", "0", "try 224"),
    ("--data.crop", "73", "try 63"),
    ("--data.crop", "35", "36"),
    ("--data.pca-std", "-0.1", "try 0.1"),
    ("--data.validation-fraction", "1.0", "try 0.1"),
    ("--data.cache-gib", "-1.0", "try 2.0"),
    ("--data.threads", "-1", "try 2"),
    ("--data.prefetch", "0", "try 4"),
    ("--model.width", "0.0", "try 1.0"),
    ("--model.conv345-init-std", "0.0", "try 0.01"),
    ("--model.lrn-alpha", "-0.1", "try 0.0001"),
    ("--model.dropout", "1.0", "try 0.5"),
    ("--optimizer.batch-size", "0", "try 128"),
    ("--optimizer.learning-rate", "0.0", "try 0.01"),
    ("--optimizer.bias-lr-multiplier", "-1.0", "try 1.0"),
    ("--optimizer.momentum", "1.0", "try 0.9"),
    ("--optimizer.weight-decay", "-1.0", "try 0.0005"),
    ("--schedule.epochs", "0", "try 90"),
    ("--schedule.factor", "1.0", "try 0.1"),
    ("--schedule.max-drops", "-1", "try 3"),
    ("--schedule.patience", "0", "try auto"),
    ("--schedule.min-delta", "1.0", "try 0.002"),
    ("--schedule.eval-every", "0", "try 1"),
    ("--mesh.towers", "3", "try auto"),
    ("--mesh.data", "0", "try auto"),
    ("--log.every", "0", "try 20"),
    ("--log.checkpoint-every", "0", "try 1000"),
    ("--optimizer.learning-rate", "inf", "try 0.01"),
    ("--model.width", "inf", "try 1.0"),
    ("--optimizer.batch-size", "4001", "try 2048"),
    ("--preset", "papers", "use one of them"),
    ("--data.images-per-crop", "0", "try 1"),
    ("--data.train-divisor", "0.0", "try 1.0"),
    ("--data.pca-epochs", "-1", "try 0"),
    ("--model.init-std", "0.0", "try 0.01"),
    ("--model.lrn-n", "4", "try 5"),
    ("--model.lrn-k", "0.0", "try 2.0"),
    ("--model.bottleneck", "3", "use 0 for none"),
    ("--optimizer.layer-learning-rates", "fc8", "try conv1=0 fc8=10"),
    ("--optimizer.layer-learning-rates", "fc8=-1", "try conv1=0 fc8=10"),
    ("--optimizer.layer-learning-rates", "fc8=nan", "try conv1=0 fc8=10"),
    ("--optimizer.layer-learning-rates", "fc9=2", "use one of these"),
    ("--optimizer.bias-lr-drops", "-1", "try all"),
    ("--profile.steps", "9:3", "try 10:15"),
    ("--profile.steps", "0:3", "try 10:15"),
    ("--schedule.slow-conv1", "-1", "try 0"),
    ("--schedule.freeze-conv1", "-1", "try 0"),
    ("--init-from", "nowhere", "name the folder of a run"),
    ("--schedule.milestones", "9 5", "try 23 51 78"),
    ("--distributed.num-processes", "2", "give both or neither"),
    ("--init.reinit-layers", "fc8", "give both or neither"),
]


@pytest.mark.parametrize(
    ("option", "value", "remedy"), BAD, ids=[f"{option} {value}" for option, value, _ in BAD]
)
def test_a_bad_value_is_refused_with_a_remedy(option, value, remedy, workdir, capsys):
    message = refused(capsys, "--workdir", workdir, option, *value.split())
    assert message.startswith(f"{option} {value}: ")
    assert remedy in message.rpartition("; ")[2]


def test_a_path_that_nothing_reads(workdir, capsys):
    message = refused(capsys, "--workdir", workdir, "--data.path", "photos")
    assert message.startswith("--data.path photos: ")
    assert "--preset photos" in message


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        (["--data.source", "folder"], "--data.path", "name the folder"),
        (["--preset", "photos"], "--data.path", "name the folder"),
        (["--data.source", "tfds"], "--data.name", "name the data set"),
    ],
)
def test_a_source_without_its_folder_or_name(arguments, option, remedy, workdir, capsys):
    message = refused(capsys, "--workdir", workdir, *arguments)
    assert message.startswith(option)
    assert "--data.source" in message
    assert remedy in message


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("--data.corp", "--data.crop"),
        ("--optimizer.batch=5", "--optimizer.batch-size"),
        ("--batch", "--optimizer.batch-size"),
        ("--optimizer.lr", "--optimizer.learning-rate"),
        ("--pretrained", "--init-from"),
        ("--work-dir", "--workdir"),
        ("-workdir", "--workdir"),
        ("--presets", "--preset"),
        ("--model", "--preset"),
        ("--lr", "--optimizer.learning-rate"),
        ("--batch_size", "--optimizer.batch-size"),
        ("--epochs", "--schedule.epochs"),
        ("--log.chekpoint-every", "--log.checkpoint-every"),
    ],
)
def test_an_unknown_option_names_the_nearest(wrong, nearest, workdir, capsys):
    message = refused(capsys, "--workdir", workdir, wrong, "5")
    assert message.startswith(f"{wrong.partition('=')[0]}: ")
    assert f"try {nearest} (" in message


@pytest.mark.parametrize("terminal", ["", "xterm-256color"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data.crop", "abc"], ["--data.crop abc: ", "integer"]),
        (["--optimizer.learning-rate", "fast"], ["--optimizer.learning-rate fast: ", "number"]),
        (["--data.source", "web"], ["--data.source web: ", "synthetic, folder"]),
        (
            ["--data.horizontal-flip", "yes"],
            ["--data.horizontal-flip yes: ", "True, False"],
        ),
        (
            ["--model.precision", "exact"],
            ["--model.precision exact: ", "default, high, highest"],
        ),
        (
            ["--process.deterministic", "maybe"],
            ["--process.deterministic maybe: ", "True, False"],
        ),
        (["--schedule.milestones", "a", "b"], ["--schedule.milestones", "'a', 'b'"]),
        (["--data.crop"], ["--data.crop: ", "missing"]),
        (["extra"], ["extra: ", "option"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_value_of_the_wrong_kind(arguments, parts, terminal, workdir, capsys, monkeypatch):
    monkeypatch.setenv("TERM", terminal)
    message = refused(capsys, "--workdir", workdir, *arguments)
    assert all(part in message for part in parts), message
    assert message.endswith(("; see --help.", "; use one of them."))
    assert message.isprintable()


@pytest.mark.parametrize("arguments", [[], ["--seed", "1"]])
def test_no_workdir(arguments, capsys):
    message = refused(capsys, *arguments)
    assert message.startswith("Missing: --workdir (folder of the run")
    assert message.endswith("see --help.")


def test_the_batch_must_divide_into_the_shards(workdir, capsys):
    arguments = ["--mesh.towers", 1, "--mesh.data", 4, "--optimizer.batch-size", 126]
    message = refused(capsys, "--workdir", workdir, *arguments)
    assert message.startswith("--optimizer.batch-size 126: ")
    assert message.endswith("try 128.")


def test_more_devices_than_there_are(workdir, capsys):
    message = refused(capsys, "--workdir", workdir, "--mesh.data", 16, "--mesh.towers", 2)
    for part in ("--mesh.data 16", "--mesh.towers 2", "32 devices", "4", "auto"):
        assert part in message


def of_folder(root):
    return ["--data.source", "folder", "--data.path", root]


def test_a_folder_that_is_missing(workdir, tmp_path, capsys):
    message = refused(capsys, "--workdir", workdir, *of_folder(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in message
    assert message.startswith("--data.path ")
    assert "correct the path" in message


def test_a_folder_without_class_folders(workdir, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    message = refused(capsys, "--workdir", workdir, *of_folder(tmp_path / "photos"))
    assert str(tmp_path / "photos") in message
    assert "class folders" in message


def test_an_empty_class(workdir, tmp_path, capsys):
    root = photos(tmp_path / "photos", {"cats": 2, "dogs": 0, "owls": 2})
    message = refused(capsys, "--workdir", workdir, *of_folder(root))
    assert str(root / "dogs") in message
    assert "add images, or remove the folder" in message


def test_one_class_only(workdir, tmp_path, capsys):
    root = photos(tmp_path / "photos", {"cats": 4})
    message = refused(capsys, "--workdir", workdir, *of_folder(root))
    assert str(root) in message
    assert "(cats)" in message
    assert "add another" in message


def test_nothing_is_left_to_read(tmp_path, capsys):
    root = photos(tmp_path / "photos", {"cats": 3, "dogs": 3})
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    batch = ["--optimizer.batch-size", "2"]
    assert main(["--workdir", str(tmp_path / "run"), *map(str, of_folder(root)), *batch]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"4 .*images", line)
    assert "check the files" in line


def test_a_workdir_that_cannot_be_written_to(tmp_path, capsys):
    # Below a regular file nobody can make a folder, root included.
    (tmp_path / "file").write_text("")
    message = refused(capsys, "--workdir", tmp_path / "file" / "run")
    assert message.startswith(f"--workdir {tmp_path / 'file' / 'run'}: ")
    assert "Not a directory" in message
    assert "use a folder" in message
    message = refused(capsys, "--workdir", tmp_path / "file")
    assert message.startswith(f"--workdir {tmp_path / 'file'}: ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("")
    message = refused(capsys, "--workdir", tmp_path / "run")
    assert "File exists" in message
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_without_permission(tmp_path, capsys, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "run/checkpoints/x"))

    monkeypatch.setattr("tempfile.TemporaryFile", deny)
    message = refused(capsys, "--workdir", tmp_path / "run")
    assert message.startswith(f"--workdir {tmp_path / 'run'}: ")
    assert "Permission denied" in message
    assert "use a folder" in message


def test_other_ends_have_their_own_codes(tmp_path, capsys, monkeypatch):
    for error, code, words in [
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes"),
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


def test_of_an_option_given_twice_the_last_counts_unless_both_may_be_meant():
    command = parse(["--workdir", "a", "--seed", "1", "--workdir", "b", "--seed", "2"])
    assert (command.workdir, command.config.seed) == (Path("b"), 2)
    with pytest.raises(ValueError, match="--schedule.milestones: .*once.*; write .* A B"):
        parse(["--workdir", "a", *["--schedule.milestones", "3"] * 2])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_starting_point_for_every_field(preset):
    assert parse(["--workdir", "a", "--preset", preset]).config == PRESETS[preset]
    assert parse([f"--preset={preset}", "--workdir=a"]).config == PRESETS[preset]
    changed = parse(["--workdir", "a", "--preset", preset, "--data.pca-std", "0.3"])
    assert changed.workdir == Path("a")
    before, after = flatten(PRESETS[preset]), flatten(changed.config)
    assert {name for name in before if before[name] != after[name]} == {"data.pca_std"}


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


def test_help_shows_every_field_with_its_default(capsys, monkeypatch):
    text = help_of([], capsys, monkeypatch)
    seen = list(fields())
    assert len(seen) == len(flatten(Config()))
    for name, default, comment in seen:
        assert comment, name
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        shown = shlex.quote(default) if isinstance(default, str) else shown
        entry = text[text.index(name) :]
        described = re.sub(r"\s", "", f"{comment} (default: {shown})")
        assert described in entry[: len(described) + 120], name
    assert "--workdirPATHfolderoftherun:" in text


def test_help_after_a_preset_shows_its_defaults(capsys, monkeypatch):
    text = help_of(["--preset", "photos"], capsys, monkeypatch)
    assert "(P4.1)(default:224)" in text
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
    (line,) = ended.stderr.splitlines()
    assert line.startswith("alexnet_jax: --data.corp: ")
    assert "try --data.crop (" in line
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
def test_the_cpu_emulates_the_devices_that_the_mesh_needs(
    arguments, environment, computed_before, devices
):
    ended = run("-c", COUNT, json.dumps([arguments, computed_before]), **environment)
    assert ended.stderr == ""
    assert ended.stdout == f"{devices}\n"


def test_the_package_lists_its_commands():
    listed = run("-m", "alexnet_jax")
    assert (listed.returncode, listed.stderr) == (0, "")
    commands = re.findall(r"python -m alexnet_jax\.(\w+)", listed.stdout)
    root = Path(configuration.__file__).parent
    modules = {path.stem for path in root.glob("*.py")}
    assert {*commands} == modules - {"__init__", "__main__", "config", "presets"}
    for name in commands:
        ended = run("-m", "alexnet_jax", name, "--help")
        assert ended.returncode == 0, name
        assert ended.stdout == run("-m", f"alexnet_jax.{name}", "--help").stdout, name


def test_a_command_that_does_not_exist():
    for name, nearest in {"train": "main", "predcit": "predict"}.items():
        ended = run("-m", "alexnet_jax", name)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"alexnet_jax: {name}: ")
        assert ended.stderr.endswith(f"try {nearest}.\n")
