"""Weights by name: the table, the cache, and every command that takes a name."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_jax as ax
from alexnet_jax import describe, evaluate, export, features, figures, predict, pretrained, retrieve
from alexnet_jax import main as training
from alexnet_jax.cli.published import with_origin_folder
from alexnet_jax.config import PublishedName, flatten
from alexnet_jax.inference.scores import ILSVRC_2012
from alexnet_jax.presets import PRESETS
from alexnet_jax.storage import download
from alexnet_jax.storage.digest import digest
from alexnet_jax.training.stopping import never
from alexnet_jax.weights import class_names, published
from tests import foreign
from tests.loopback import serving
from tests.weights.test_pretrained import random_set, tiny

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = class_names.imagenet()


def write_torchvision(path):
    """Write a small file of torchvision's form with 1,000 classes."""
    arrays, rng = random_set("torchvision"), np.random.default_rng(0)
    arrays["classifier.6.weight"] = rng.normal(size=(1000, 122)).astype(np.float32)
    arrays["classifier.6.bias"] = rng.normal(size=1000).astype(np.float32)
    # Small enough that training does not end in infinities.
    foreign.write_torch_zip(path, {n: (0.05 * a).astype("f4") for n, a in arrays.items()})


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("torchvision") / "weights.pth"
    write_torchvision(path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep published weights in a folder of the test, which is not the working directory."""
    monkeypatch.setenv("ALEXNET_JAX_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"


@pytest.fixture
def server(content, monkeypatch):
    """Serve the small file as torchvision's, whose network is small then."""
    for name, config in PRESETS.items():
        if name not in ("quickstart", "photos"):
            monkeypatch.setitem(PRESETS, name, tiny(config))
    with serving(content) as plan:
        sha256 = hashlib.sha256(content).hexdigest()
        changed = {"url": plan.url, "digest": sha256, "algorithm": "sha256"}
        entry = dataclasses.replace(published.PUBLISHED["torchvision"], **changed)
        monkeypatch.setitem(published.PUBLISHED, "torchvision", entry)
        yield plan


@pytest.fixture
def entry(server):
    assert server.url
    return published.PUBLISHED["torchvision"]


def refused(command, capsys, *arguments):
    """Run a command that is refused; return its one sentence, without notes before it."""
    assert command.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1].removeprefix("alexnet_jax: ")


def photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 130, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_table_holds_what_is_published():
    table = published.PUBLISHED
    assert tuple(table) == typing.get_args(PublishedName)
    assert table["torchvision"].file == "alexnet-owt-7be5be79.pth"
    assert table["torchvision"].digest.startswith("7be5be79")
    assert table["bvlc_alexnet"].digest == "9116a64c0fbe4459d18f4bb6b56d647b63920377"
    assert table["caffenet"].digest == "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"
    for name, entry in table.items():
        assert (entry.name, entry.preset) == (name, name)
        assert len(entry.digest) == {"sha1": 40, "sha256": 64}[entry.algorithm]
        assert 4 * 60_965_224 < entry.megabytes * 1e6 + 1e5 < published.MAX_BYTES
        assert PRESETS[entry.preset].preset == entry.preset


def test_imagenets_names_are_those_of_its_classes():
    assert len(NAMES) == len({*NAMES}) == 1000
    assert class_names.describe_duplicates(NAMES) == ""
    synsets = [name.split()[0] for name in NAMES]
    assert synsets == sorted(synsets)
    assert digest(synsets) == ILSVRC_2012
    cranes = [label for label, name in enumerate(NAMES) if name.endswith(" crane")]
    assert cranes == [134, 517]
    assert [NAMES[label].split()[0] for label in cranes] == ["n02012849", "n03126707"]


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert published.cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("ALEXNET_JAX_CACHE", "relative")
    assert published.cache_folder() == Path.cwd() / "relative"
    monkeypatch.setenv("ALEXNET_JAX_CACHE", "~/a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert published.cache_folder() == tmp_path / "a"
    monkeypatch.setenv("ALEXNET_JAX_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert published.cache_folder() == tmp_path / "xdg" / "alexnet_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification ignores
    assert published.cache_folder() == tmp_path / ".cache" / "alexnet_jax"
    monkeypatch.setenv("ALEXNET_JAX_CACHE", "gs://bucket/a")
    with pytest.raises(ValueError, match=r"ALEXNET_JAX_CACHE gs://bucket/a: .*local"):
        published.cache_folder()
    monkeypatch.setenv("ALEXNET_JAX_CACHE", "~nobody-of-this-name/a")
    with pytest.raises(ValueError, match=r"~nobody-of-this-name/a: .*; set ALEXNET_JAX_CACHE"):
        published.cache_folder()


def test_a_file_is_downloaded_once_and_then_needs_no_network(server, entry, content):
    assert published.fetch(entry).read_bytes() == content
    assert len(server.asked) == 1
    server.status = 404
    (entry.folder / "lock").unlink()
    assert published.fetch(entry) == entry.path
    assert len(server.asked) == 1
    assert not (entry.folder / "lock").exists()  # nor a folder that can be written to


def test_a_file_put_by_hand_where_the_message_says(server, entry, content):
    server.status = 503
    with pytest.raises(ValueError, match="by hand") as error:
        published.fetch(entry)
    (place,) = re.findall(r"by hand: (.*)\.$", str(error.value))
    Path(place).write_bytes(content)
    assert published.fetch(entry).read_bytes() == content


@pytest.mark.parametrize("damage", ["changed", "shortened", "empty"])
def test_a_damaged_file_in_the_cache_is_refused(damage, server, entry, content, tmp_path, capsys):
    entry.folder.mkdir(parents=True)
    wrong = {"changed": b"x" + content[1:], "shortened": content[:-1], "empty": b""}[damage]
    entry.path.write_bytes(wrong)
    for command, arguments in [
        (pretrained, ("--from", "torchvision", "--workdir", tmp_path / "a")),
        (predict, ("--weights", "torchvision", photograph(tmp_path / "photo.png"))),
    ]:
        message = refused(command, capsys, *arguments)
        assert message.startswith(f"{entry.path}: ")
        assert hashlib.sha256(wrong).hexdigest() in message
        assert entry.digest in message
        assert "remove the file" in message
    assert server.asked == []
    assert entry.path.read_bytes() == wrong  # it may be the user's own
    assert not (tmp_path / "a").exists()
    assert not entry.run.exists()


def test_the_wrong_file_on_the_server_leaves_nothing(server, entry, tmp_path, capsys):
    server.content = b"<html>Log in to this network</html>"
    arguments = ("--from", "torchvision", "--workdir", tmp_path / "a")
    message = refused(pretrained, capsys, *arguments)
    assert hashlib.sha256(server.content).hexdigest() in message
    assert entry.digest in message
    assert [path.name for path in entry.folder.iterdir()] == ["lock"]
    assert not (tmp_path / "a").exists()


def test_two_at_once_download_once(server, entry, content, capsys, monkeypatch):
    server.seconds = 0.5
    monkeypatch.setattr("alexnet_jax.storage.lock.PAUSE", 0.02)
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(published.fetch(entry))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [entry.path] * 2
    assert entry.path.read_bytes() == content
    assert len(server.asked) == 1
    assert capsys.readouterr().err.count("waiting until it ends") == 1


@pytest.mark.parametrize("reason", ["a file", "read-only"])
def test_a_cache_that_cannot_be_written_to(reason, entry, cache, tmp_path, capsys, monkeypatch):
    if reason == "a file":
        cache.write_text("")
    else:  # for root too, whom permissions do not keep

        def mkdir(path, *_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "mkdir", mkdir)
    message = refused(pretrained, capsys, "--from", "torchvision", "--workdir", tmp_path / "a")
    assert message.startswith(f"cache folder {entry.folder}: ")
    assert "set ALEXNET_JAX_CACHE" in message


def test_ctrl_c_in_a_download_and_again(server, tmp_path, capsys, monkeypatch):
    receive = download._receive_once

    def interrupted(*arguments):
        receive(*arguments)
        raise KeyboardInterrupt

    arguments = ["--from", "torchvision", "--workdir", str(tmp_path / "a")]
    server.cut_after = [1000]
    with monkeypatch.context() as patch:
        patch.setattr(download, "_receive_once", interrupted)
        assert pretrained.main(arguments) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert pretrained.main(arguments) == 0
    assert server.asked == ["", "bytes=1000-"]


def test_a_name_is_a_name_and_a_path_a_path(server, entry, content, tmp_path, capsys):
    run = ["--workdir", str(tmp_path / "a")]
    Path("torchvision").write_bytes(b"something else")
    assert pretrained.main(["--from", "torchvision", *run]) == 0
    captured = capsys.readouterr()
    assert "./torchvision is what lies" in captured.err
    assert f"parameters from {entry.path}" in captured.out
    message = refused(pretrained, capsys, "--from", "./torchvision", "--workdir", tmp_path / "b")
    assert message.startswith("torchvision: ")
    Path("torchvision").write_bytes(content)
    assert pretrained.main(["--from", "./torchvision", "--workdir", str(tmp_path / "b")]) == 0
    assert "parameters from torchvision," in capsys.readouterr().out
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("torchvison", ("no such file", "bvlc_alexnet", "try torchvision")),
        ("CaffeNet", ("try caffenet",)),
        ("alexnet-owt-7be5be79.pth", ("try torchvision",)),
        ("somewhere/torchvision", ("no such file",)),
        ("vgg", ("no such file", "correct")),
    ],
)
def test_a_name_that_is_none(source, parts, capsys, tmp_path):
    message = refused(pretrained, capsys, "--from", source, "--workdir", tmp_path / "a")
    assert message.startswith(f"--from {source}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (predict, ["photo.png"]),
        (features, ["photo.png", "--to", "a.npz"]),
        (retrieve, ["photo.png", "--images", "."]),
        (evaluate, ["--images", "."]),
        (export, ["--to", "a.stablehlo"]),
        (figures, ["--maps", "photo.png"]),
    ],
)
def test_one_network_of_a_run_or_a_name(command, arguments, capsys):
    message = refused(command, capsys, *arguments)
    assert message.startswith("Missing: --workdir (folder of a run), or --weights")
    assert "caffenet" in message
    message = refused(command, capsys, *arguments, "--weights", "alexnet")
    assert message.startswith("--weights alexnet: must be one of ")
    assert "None" not in message
    if command != evaluate:
        both = ("--weights", "caffenet", "--workdir", "a")
        message = refused(command, capsys, *arguments, *both)
        assert message.startswith("--workdir a, --weights caffenet: ")


def test_the_list_of_published_weights(cache, capsys):
    assert pretrained.main(["--list"]) == 0
    text = capsys.readouterr().out
    for name, entry in published.PUBLISHED.items():
        for part in (name, entry.url, entry.digest, entry.accuracy, entry.license, entry.source):
            assert part in text
    assert text.count(str(cache)) == 3
    assert "244.4 MB" in text
    assert not cache.exists()
    assert "--list" in refused(pretrained, capsys, "--list", "--workdir", "a")


@pytest.mark.usefixtures("server")
def test_an_import_by_name_says_what_it_is(entry, tmp_path, capsys):
    assert pretrained.main(["--from", "torchvision", "--workdir", str(tmp_path / "a")]) == 0
    captured = capsys.readouterr()
    assert entry.url in captured.err
    assert str(entry.path) in captured.err
    assert "1,000 classes" in captured.out
    assert "56.522 % top-1, 79.066 % top-5" in captured.out
    assert "Assumed" not in captured.out
    about = json.loads((tmp_path / "a" / "config.json").read_text())
    assert about["class_names"] == NAMES
    assert about["config"]["preset"] == "torchvision"
    message = refused(
        *(pretrained, capsys, "--from", "torchvision", "--workdir", tmp_path / "b"),
        *("--preset", "caffenet"),
    )
    assert message.startswith("--preset caffenet: ")
    assert "leave it out" in message


@pytest.mark.usefixtures("server")
def test_imagenets_names_for_a_file(content, tmp_path, capsys):
    (tmp_path / "mine.pth").write_bytes(content)
    mine = ["--from", str(tmp_path / "mine.pth")]
    assert pretrained.main([*mine, "--workdir", str(tmp_path / "a")]) == 0
    assert "add --class-names imagenet" in capsys.readouterr().out
    Path("imagenet").write_text("not\nthese\n")
    options = ["--workdir", str(tmp_path / "b"), "--class-names", "imagenet"]
    assert pretrained.main([*mine, *options]) == 0
    captured = capsys.readouterr()
    assert "--class-names" not in captured.out
    assert "./imagenet" in captured.err
    assert json.loads((tmp_path / "b" / "config.json").read_text())["class_names"] == NAMES
    few = ("--workdir", tmp_path / "c", "--class-names", "./imagenet")
    assert "--class-names of 2 classes" in refused(pretrained, capsys, *mine, *few)


def test_every_command_takes_a_name(server, entry, tmp_path, capsys):
    photo = photograph(tmp_path / "photos" / "n02012849" / "photo.png")
    weights = ["--weights", "torchvision"]
    assert predict.main([*weights, str(photo), "--json"]) == 0
    captured = capsys.readouterr()
    assert str(entry.run) in captured.err
    (line,) = captured.out.splitlines()
    predictions = json.loads(line)["predictions"]
    assert {prediction["class"] for prediction in predictions} <= {*NAMES}
    server.status = 404  # from here on nothing is downloaded

    network = ax.load("torchvision")
    best = int(np.argmax(network.predict(photo)))
    assert network.class_names[best] == predictions[0]["class"]
    np.testing.assert_array_equal(ax.load(entry.run).predict(photo), network.predict(photo))
    with pytest.raises(ValueError, match="workdir torchvision: "):
        ax.load(Path("torchvision"))
    with pytest.raises(ValueError, match=r"workdir \.?/?torchvision: "):
        ax.load("./torchvision")

    assert evaluate.main([*weights, "--images", str(photo.parents[1]), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["count"], scores["classes"]) == (1, 1000)
    assert scores["top1_error"] == float(best != NAMES.index("n02012849 crane"))
    assert "--weights" in refused(
        evaluate, capsys, *weights, *weights, "--images", photo.parents[1]
    )

    assert features.main([*weights, str(photo), "--to", "f.npz"]) == 0
    assert np.load("f.npz")["relu7"].shape == (1, 122)
    assert retrieve.main([*weights, str(photo), "--images", str(photo.parents[1])]) == 0
    assert "photo.png" in capsys.readouterr().out
    assert figures.main([*weights, "--maps", str(photo)]) == 0
    assert Path("figures/maps-conv1-photo.png").exists()
    assert describe.main([*weights, "--brief", "--json"]) == 0
    assert export.main([*weights, "--to", "a.stablehlo"]) == 0
    assert len(server.asked) == 1


def test_a_run_starts_from_a_name_and_goes_on_without_it(server, entry, tmp_path, monkeypatch):
    published.run_folder("torchvision")
    arguments = ["--workdir", "tuned", "--preset", "photos", "--init-from", "torchvision"]
    config = training.parse(with_origin_folder(arguments, never)).config
    assert config.init_from == str(entry.run)
    assert config.preset == "photos"
    assert config.model.variant == "torchvision"
    assert config.data.crop == PRESETS["torchvision"].data.crop
    Path("tuned").mkdir()
    Path("tuned/config.json").write_text(json.dumps({"config": flatten(config)}))
    server.status = 404
    monkeypatch.setenv("ALEXNET_JAX_CACHE", str(tmp_path / "another"))
    assert training.parse(with_origin_folder(arguments, never)).config == config
    assert not (tmp_path / "another").exists()
    assert len(server.asked) == 1
    arguments[1] = "another"
    assert "by hand" in refused_in_parsing(arguments)


def refused_in_parsing(arguments):
    with pytest.raises(ValueError, match="cannot be downloaded") as error:
        training.parse(with_origin_folder(arguments, never))
    return str(error.value)


def test_a_damaged_run_is_made_again(server, entry, capsys):
    run = published.run_folder("torchvision")
    (largest,) = sorted((run / "checkpoints").rglob("d/*"), key=lambda p: p.stat().st_size)[-1:]
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    capsys.readouterr()
    assert published.run_folder("torchvision") == run
    error = capsys.readouterr().err
    assert "made again" in error
    (run / "config.json").write_text("{}")
    assert ax.load("torchvision").class_names == tuple(NAMES)
    assert len(server.asked) == 1
    assert sorted(path.name for path in entry.folder.iterdir()) == sorted(
        [entry.file, "lock", "run"]
    )


def test_a_name_that_the_library_does_not_know():
    with pytest.raises(ValueError, match=r"weights vgg: .*caffenet; use one"):
        published.run_folder("vgg")


@pytest.mark.slow
def test_another_process_makes_the_run_and_tells_what_is_wrong(entry):
    """There the network is as large as it is, and not that of the small file."""
    with pytest.raises(ValueError, match=r"features\.0\.weight"):
        published.run_folder(entry.name, own_process=True)
    assert not entry.run.exists()


def _killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_import_whose_process_is_killed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(published, "_make_run", _killed)
    with pytest.raises(ValueError, match="was killed, .*memory.*; free some, and run the same"):
        published._make_run_in_a_process(published.PUBLISHED["torchvision"])


def test_the_process_that_imports_ends_with_the_one_that_started_it(tmp_path):
    script = (
        "import concurrent.futures, multiprocessing, os, signal, time\n"
        "from alexnet_jax.weights.published import _end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    pool = concurrent.futures.ProcessPoolExecutor(\n"
        "        1, mp_context=spawn, initializer=_end_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "start.py").write_text(script)
    # Whoever lives has the pipe open, for which `run` waits.
    command = [sys.executable, str(tmp_path / "start.py")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    assert int(ended.stdout) > 0
    assert ended.returncode == -signal.SIGKILL
