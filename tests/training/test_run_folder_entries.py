"""What stands where a run writes is refused before anything is read or trained."""

import json

import pytest

from alexnet_jax.config import Config, flatten
from alexnet_jax.main import main
from alexnet_jax.training import loop
from alexnet_jax.training.run_config import CONFIG
from alexnet_jax.training.run_folder import FILES, FOLDERS, check_entries
from tests.data.test_folders import make


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_folder_for_a_file_and_the_reverse_are_named(tmp_path, name):
    check_entries(tmp_path / "none", "")
    path = tmp_path / name
    path.mkdir()
    if name in FOLDERS:
        check_entries(tmp_path, "")
        path.rmdir()
        path.write_text("")
    with pytest.raises(ValueError, match=rf"^workdir {tmp_path}: {name} .*; move it away, or use"):
        check_entries(tmp_path, "")


@pytest.mark.parametrize("name", [CONFIG, "summary.json", "metrics.jsonl", "index.html"])
def test_files_that_are_no_runs_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text('{"a": 1}')
    message = rf"^workdir {tmp_path}: holds no run, .* {name} in it; move that away"
    with pytest.raises(ValueError, match=message):
        check_entries(tmp_path, "")
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)  # a run whose own file was damaged
    check_entries(tmp_path, "")


def test_a_run_that_ended_before_its_first_checkpoint_is_one(tmp_path):
    (tmp_path / "lock").write_text("")
    check_entries(tmp_path, "")
    about = {"config": flatten(Config())}
    (tmp_path / CONFIG).write_text(json.dumps(about))
    (tmp_path / "metrics.jsonl").write_text("")
    check_entries(tmp_path, "")


def test_a_folder_of_images_is_no_place_for_a_run(tmp_path):
    data = make(tmp_path / "d", {"train": {"cat": 1, "dog": 1}})
    for workdir in (data / "train", data / "train" / "cat"):
        message = rf"^workdir {workdir}: .* images in data.path={data}; use a folder of its own"
        with pytest.raises(ValueError, match=message):
            check_entries(workdir, str(data))
        check_entries(workdir, "")
    (data / "runs").mkdir()
    for workdir in (data, data / "runs", data / "runs" / "a"):
        check_entries(workdir, str(data))
    make(data / "runs" / "b", {"slurm-1.out": "", "Makefile": ""})
    check_entries(data / "runs" / "b", str(data))
    began = make(data / "runs" / "a", {"lock": "", "tensorboard": {"events.out": "", "a.png": 1}})
    check_entries(began, str(data))


def test_the_command_refuses_before_it_reads_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "open_splits", None)
    (tmp_path / "summary.json").mkdir()
    assert main(["--workdir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"alexnet_jax: --workdir {tmp_path}: summary.json ")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
