"""What stands where a run writes is refused before anything is read or trained."""

import pytest

from alexnet_jax.main import main
from alexnet_jax.training import loop
from alexnet_jax.training.run_folder import FILES, FOLDERS, check_entries


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_folder_for_a_file_and_the_reverse_are_named(tmp_path, name):
    check_entries(tmp_path / "none")
    path = tmp_path / name
    if name in FILES:
        path.write_text("")
        check_entries(tmp_path)
        path.unlink()
        path.mkdir()
    else:
        path.mkdir()
        check_entries(tmp_path)
        path.rmdir()
        path.write_text("")
    with pytest.raises(ValueError, match=rf"^workdir {tmp_path}: {name} .*; move it away, or use"):
        check_entries(tmp_path)


def test_the_command_refuses_before_it_reads_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "open_splits", None)
    (tmp_path / "summary.json").mkdir()
    assert main(["--workdir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"alexnet_jax: --workdir {tmp_path}: summary.json ")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
