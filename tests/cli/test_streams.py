"""Standard streams that are closed, full or not read: no traceback, and nothing in another file."""

import subprocess
import sys

import pytest

# A command that prints, opens a file, writes as C++ does, and fails if it is told to.
COMMAND = """
import dataclasses, os, sys
from alexnet_jax.cli import streams
from alexnet_jax.cli.errors import run_command

@dataclasses.dataclass
class Nothing:
    pass

def run():
    with open(sys.argv[1], "w") as file:
        print("printed", flush=True)
        print("complaint", file=sys.stderr)
        os.write(2, b"from C\\n")
        os.write(1, b"from C\\n")
        print(sys.stdin.read())
        file.write("content")
    if sys.argv[2] == "fails":
        raise ValueError("Why.")
    if sys.argv[2] == "help":
        sys.exit(0)

sys.exit(run_command(run, Nothing, "", needs_output=sys.argv[3] == "needed"))
"""


def run(redirections, path, end="ends", output="needed"):
    """Return the exit code and both streams of the command, started by a shell."""
    shell = f'"$0" -c "$1" "$2" {end} {output} {redirections}'
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, COMMAND, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_other_file(closed, tmp_path):
    ended = run(closed, tmp_path / "file", output="optional")
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "file").read_text() == "content"
    assert ("printed" in ended.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("end", ["ends", "fails", "help"])
def test_a_command_that_only_prints_fails_where_standard_output_is_closed(end, tmp_path):
    ended = run(">&-", tmp_path / "file", end)
    assert ended.returncode == 2
    (line,) = (line for line in ended.stderr.splitlines() if "standard output" in line)
    assert "closed" in line
    assert "print to another place" in line
    assert run(">&- 2>&-", tmp_path / "file", end).returncode == 2
    ended = run(">&-", tmp_path / "file", end, output="optional")
    assert "closed; the command goes on without it." in ended.stderr


def test_the_number_of_a_closed_stream_may_be_that_of_another_file(tmp_path):
    script = "import os; os.open(os.environ['FILE'], os.O_WRONLY | os.O_CREAT); " + COMMAND
    shell = f'FILE="$2/one" "$0" -c "{"$1"}" "$2/two" ends optional >&-'
    ended = subprocess.run(
        ["sh", "-c", shell, sys.executable, script, tmp_path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    # What C writes goes there, and nothing can be done about it.
    assert (tmp_path / "one").read_text() == "from C\n"


def test_an_error_goes_nowhere_else_where_standard_error_is_closed(tmp_path):
    ended = run("2>&-", tmp_path / "file", "fails")
    assert (ended.returncode, ended.stderr) == (2, "")
    assert "Why." not in ended.stdout + (tmp_path / "file").read_text()


@pytest.mark.parametrize("end", ["ends", "fails", "help"])
def test_output_that_cannot_be_written_is_said(end, tmp_path):
    ended = run(">/dev/full", tmp_path / "file", end)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("alexnet_jax: standard output: No space left on device; ")
    assert run(">/dev/full 2>/dev/full", tmp_path / "file", end).returncode == 2


def test_a_command_that_keeps_its_own_records_goes_on_without_output(tmp_path):
    ended = run(">/dev/full", tmp_path / "file", output="optional")
    assert ended.returncode == 0
    assert "the command goes on without it.\n" in ended.stderr
    assert ended.stderr.endswith("\ncomplaint\n")
    assert (tmp_path / "file").read_text() == "content"
    assert run("2>/dev/full", tmp_path / "file", "fails").returncode == 2


def test_the_list_of_commands_may_be_read_in_part():
    for redirection, code in ((">/dev/full", 2), (">&-", 2), ("2>&-", 0)):
        shell = f'"$0" -m alexnet_jax {redirection}'
        ended = subprocess.run(
            ["sh", "-c", shell, sys.executable], capture_output=True, text=True, check=False
        )
        assert ended.returncode == code
        assert "Traceback" not in ended.stderr
