"""No option takes an address of a remote store: each command says so and makes nothing."""

import pytest

from alexnet_jax import describe, evaluate, figures, main, predict, prepare, pretrained, retrieve

REFUSED = {
    "train": (main.main, ["--workdir", "gs://bucket/a"], "--workdir"),
    "equals": (main.main, ["--workdir=gs://bucket/a"], "--workdir"),
    "data": (main.main, ["--workdir", "a", "--data.path", "s3://bucket/a"], "--data.path"),
    "init": (main.main, ["--workdir", "a", "--init-from", "hf://org/a"], "--init-from"),
    "predict": (predict.main, ["--workdir", "gs://bucket/a", "x.jpg"], "--workdir"),
    "photograph": (predict.main, ["https://host/x.jpg", "--workdir", "a"], "argument"),
    "evaluate": (evaluate.main, ["--workdir", "gs://bucket/a"], "--workdir"),
    "images": (evaluate.main, ["--workdir", "a", "--images", "az://bucket/a"], "--images"),
    "describe": (describe.main, ["--workdir", "gs://bucket/a"], "--workdir"),
    "figures": (figures.main, ["--workdir", "gs://bucket/a"], "--workdir"),
    "retrieve": (retrieve.main, ["q.jpg", "--workdir", "a", "--images", "gs://b/a"], "--images"),
    "import": (pretrained.main, ["--from", "https://host/a.pth", "--workdir", "a"], "--from"),
    "export": (pretrained.main, ["--workdir", "a", "--to", "gs://b/a.npz"], "--to"),
    "prepare": (prepare.main, ["--from", "a", "--to", "gs://bucket/a"], "--to"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_address_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    command, args, option = REFUSED[name]
    assert command(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    address = next(a.partition("=")[2] or a for a in args if "://" in a)
    assert line.startswith(f"alexnet_jax: {option} {address}: ")
    assert "local" in line
    assert not [*tmp_path.iterdir()]
