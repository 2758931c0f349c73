"""Too little memory, or too few threads, end a command with one sentence that names the limit."""

import dataclasses
import subprocess
import sys

import pytest

from alexnet_jax.cli.errors import run_command


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A command without options."""


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (MemoryError(), "memory"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "7.45 GiB"),
        (RuntimeError("can't start new thread"), "thread"),
        (ImportError("libjax_common.so: failed to map segment from shared object"), "memory"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory trying to allocate 99 bytes."),
            "99 bytes",
        ),
    ],
)
def test_lack_of_memory_is_one_sentence(error, part, capsys):
    def run():
        raise error

    assert run_command(run, Nothing, "") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line
    assert "allow more" in line


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), ImportError("No module named x")])
def test_other_errors_stay_what_they_are(error):
    def run():
        raise error

    with pytest.raises(type(error), match=str(error)):
        run_command(run, Nothing, "")


@pytest.mark.parametrize("kib", [200_000, 1_000_000, 2_000_000])
@pytest.mark.parametrize("command", ["main", "predict"])
def test_a_limit_of_address_space_is_named(kib, command, tmp_path):
    shell = f'ulimit -v {kib}; exec "$0" -m alexnet_jax.{command} --workdir "$1"'
    ended = subprocess.run(
        ["sh", "-c", shell, sys.executable, tmp_path / "a"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert f"{kib / 2**20:.1f} GiB" in line
    assert "ulimit -v" in line
    assert not (tmp_path / "a").exists()
