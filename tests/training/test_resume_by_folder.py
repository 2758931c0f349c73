"""The folder of a run is enough to resume it: its config.json has the defaults of all options."""

import dataclasses
import json
import re
import shutil

import pytest

from alexnet_jax.config import DistributedConfig, flatten, unflatten
from alexnet_jax.main import main, parse
from alexnet_jax.presets import PRESETS
from alexnet_jax.training.metrics import read_metrics
from alexnet_jax.training.run_config import CONFIG
from alexnet_jax.training.run_folder import FILES, FOLDERS
from alexnet_jax.training.schedule import warn_of_few_steps
from alexnet_jax.training.summary import closing_line

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = ["--preset", "photos", "--data.image-size", "40", "--data.crop", "36", "--seed", "3"]
SMALL += ["--model.width", "0.02", "--optimizer.batch-size", "8", "--schedule.kind", "step"]
SMALL += ["--schedule.epochs", "1", "--mesh.towers", "1", "--mesh.data", "1"]
SMALL += ["--log.figures", "False"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert main(["--workdir", str(folder), *SMALL, "--data.path", str(photos)]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """Return a copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "a")


def refusal(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line.removeprefix("alexnet_jax: ")


def change(run, **fields):
    """Change entries of the configuration in config.json, or of the file with `about_`."""
    about = json.loads((run / CONFIG).read_text())
    about["config"] |= {name.replace("__", "."): value for name, value in fields.items()}
    (run / CONFIG).write_text(json.dumps(about))


def test_every_file_of_a_run_is_known_to_the_check_of_its_folder(finished):
    assert {path.name for path in finished.iterdir()} <= {*FILES, *FOLDERS, "checkpoints"}


def test_the_folder_alone_has_every_setting(finished, photos):
    given = parse(["--workdir", str(finished), *SMALL, "--data.path", str(photos)])
    assert parse(["--workdir", str(finished)]).config == given.config
    assert given.config.preset == "photos"


def test_the_folder_alone_says_that_the_run_is_finished(finished, capsys):
    assert main(["--workdir", str(finished)]) == 0
    *_, settings, ended, closing = capsys.readouterr().out.splitlines()
    assert str(finished / CONFIG) in settings
    assert ended == f"{finished} is finished."
    assert f"--workdir {finished} --schedule.epochs 134." in closing  # 500 steps of 8 of 30 images


def test_more_epochs_are_kept_for_the_next_time(run, capsys):
    assert main(["--workdir", str(run), "--schedule.epochs", "2"]) == 0
    assert "Resumed after step 4, epoch 1" in capsys.readouterr().out
    assert read_metrics(run)[-1]["step"] == 8
    assert parse(["--workdir", str(run)]).config.schedule.epochs == 2
    assert main(["--workdir", str(run)]) == 0
    assert f"{run} is finished." in capsys.readouterr().out


def test_options_in_addition_are_compared_with_the_run(run, capsys):
    before = (run / CONFIG).read_text()
    assert main(["--workdir", str(run), "--optimizer.learning-rate", "0.5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--optimizer.learning-rate 0.5 (was 0.01)" in line
    assert "--seed" not in line
    assert (run / CONFIG).read_text() == before


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("--preset", "paper", "the preset photos"),
        ("--init-from", "elsewhere", "initial weights"),
    ],
)
def test_what_decides_other_options_must_be_that_of_the_run(finished, capsys, option, value, what):
    message = refusal(capsys, "--workdir", finished, option, value)
    assert message.startswith(f"{option} {value}: ")
    assert what in message
    assert str(finished) in message
    assert "leave it out" in message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"config": {"seed": []}}', None])
def test_a_damaged_configuration_is_refused_unless_all_options_are_given(
    run, photos, capsys, content
):
    (run / CONFIG).unlink()
    if content is None:
        (run / CONFIG).mkdir()
    else:
        (run / CONFIG).write_bytes(content)
    message = refusal(capsys, "--workdir", run)
    assert message.startswith(f"--workdir {run}: {CONFIG} ")
    assert "--preset NAME" in message
    if content is None:
        (run / CONFIG).rmdir()
    assert main(["--workdir", str(run), *SMALL, "--data.path", str(photos)]) == 0
    assert f"{run} is finished." in capsys.readouterr().out


def test_a_configuration_that_is_lost_leads_to_the_list_of_what_differs(run, capsys):
    (run / CONFIG).unlink()
    assert main(["--workdir", str(run)]) == 2
    message = capsys.readouterr().err
    assert "--preset" not in message
    assert "--seed 0 (was 3)" in message


def test_a_process_keeps_its_own_place_among_several(run):
    change(run, distributed__coordinator="host0:1234")
    change(run, distributed__num_processes=2, distributed__process_id=0)
    assert parse(["--workdir", str(run)]).config.distributed == DistributedConfig()
    again = ["--distributed.coordinator", "host0:1234"]
    again += ["--distributed.num-processes", "2", "--distributed.process-id", "1"]
    assert parse(["--workdir", str(run), *again]).config.distributed.process_id == 1


def test_a_run_that_started_from_another_resumes_without_it(run, tmp_path):
    change(run, init_from=str(tmp_path / "gone"), data__statistics="init")
    config = parse(["--workdir", str(run)]).config
    assert (config.init_from, config.data.statistics) == (str(tmp_path / "gone"), "init")
    again = parse(["--workdir", str(run), "--init-from", str(tmp_path / "gone")])
    assert again.config == config


def test_images_of_a_program_cannot_be_read_by_the_command(run, capsys):
    change(run, data__source="given", data__path="", schedule__epochs=2)
    about = run / "checkpoints"
    shutil.rmtree(about)  # as of a run that was killed before its first checkpoint
    (run / "metrics.jsonl").unlink()
    assert main(["--workdir", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data.source given" in line


def test_imported_weights_are_no_run_to_resume(run):
    about = json.loads((run / CONFIG).read_text())
    (run / CONFIG).write_text(json.dumps({**about, "imported": "caffenet.caffemodel"}))
    assert parse(["--workdir", str(run)]).config == PRESETS["quickstart"]


def test_a_folder_without_a_run_starts_the_default(tmp_path):
    for folder in (tmp_path / "new", tmp_path):
        assert parse(["--workdir", str(folder)]).config == PRESETS["quickstart"]


def test_config_json_holds_what_is_parsed(finished):
    about = json.loads((finished / CONFIG).read_text())
    assert flatten(unflatten(about["config"])) == about["config"]


def test_a_run_that_ended_before_its_first_checkpoint_starts_again_with_any_settings(
    finished, photos, tmp_path
):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / CONFIG).write_bytes((finished / CONFIG).read_bytes())
    (tmp_path / "a" / "checkpoints").mkdir()
    given = ["--workdir", str(tmp_path / "a"), "--preset", "paper", "--data.path", str(photos)]
    assert parse(given).config.preset == "paper"


def test_a_finished_run_whose_rate_has_dropped_is_not_to_be_continued(finished):
    summary = json.loads((finished / "summary.json").read_text())
    config = parse(["--workdir", str(finished)]).config
    many = summary | {"epochs": 10, "steps": 300}
    assert f"workdir={finished} schedule.epochs=20." in closing_line(many, finished, config)
    schedule = dataclasses.replace(config.schedule, kind="step", epochs=10, milestones=(8,))
    dropped = dataclasses.replace(config, schedule=schedule)
    said = closing_line(many, finished, dropped)
    assert "the same options with workdir=NEW schedule.epochs=20." in said
    fitted = dataclasses.replace(dropped, preset="small")
    few = summary | {"epochs": 10, "steps": 100}
    for one in (dropped, fitted):  # never fewer than the warning at the start asks for
        warned = warn_of_few_steps(one, summary["training_images"])
        (epochs,) = re.findall(r"schedule.epochs=(\d+)", closing_line(few, finished, one))
        assert f"schedule.epochs={epochs}." in warned
    assert "more photographs, or published weights" in closing_line(many, finished, fitted)
    given = closing_line(many | {"source": "given"}, finished, fitted)
    assert "schedule.epochs=20, in the program that gives the images." in given
