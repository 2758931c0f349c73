"""The readers of foreign files under random damage; experiments/RESULTS.md has the long run."""

import importlib.util
import pickle
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "reliability" / "fuzz_readers.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


QUICK = ["safetensors", "npz", "npy", "caffemodel", "ArrayRecord", "train tar", "validation tar"]
QUICK += ["devkit tar.gz", "meta.mat"]


@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_are_read_or_refused(name, fuzz, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "_SEEDS", fuzz.intact_files([name]))
    seeds, read = fuzz._SEEDS[name], fuzz.FORMATS[name].read
    for seed in seeds:
        intact = fuzz.FINISHES[seed.finish](seed.content, seed.context)
        assert fuzz.outcome_of(read, seed, intact, tmp_path) == "read"
    outcomes = set()
    for number in range(40):
        damage, seed, file = fuzz.damaged(seeds, [0, 0], number)
        outcome = fuzz.outcome_of(read, seed, file, tmp_path)
        outcomes.add(outcome.partition(":")[0])
        assert outcome.startswith(("read", "refused")), (number, damage, outcome)
    assert "refused" in outcomes


def test_a_damaged_file_is_a_function_of_its_number(fuzz):
    seeds = fuzz.FORMATS["caffemodel"].seeds()
    once, again = ([fuzz.damaged(seeds, [3, 1], n) for n in range(30)] for _ in range(2))
    assert once == again
    assert once != [fuzz.damaged(seeds, [4, 1], n) for n in range(30)]
    assert {damage for damage, _, _ in once} <= {damage.__name__ for damage in fuzz.DAMAGES}


READERS = {
    "raised": "raise KeyError('a')",
    "raised ": "raise ValueError('no sentence')",
    "crashed": "import os; os.kill(os.getpid(), 11)",
    "hung": "import time; time.sleep(60)",
    "grown": "numpy.ones(40_000_000)",
}


@pytest.mark.parametrize("kind", READERS)
def test_what_must_not_happen_is_counted(kind, fuzz, tmp_path, capsys):
    """One damaged file of four is read badly."""
    script = tmp_path / "fuzz_readers.py"
    reader = f"""
def bad(folder, seed, file):
    import zlib, numpy
    if file != seed.content and zlib.crc32(file) % 4 == 0:
        {READERS[kind]}

FORMATS["caffemodel"] = Format(_caffemodel_seeds, bad)

if __name__ == "__main__":"""
    script.write_text(SCRIPT.read_text().replace('\nif __name__ == "__main__":', reader))
    seconds = "1" if kind.strip() == "hung" else "60"  # on a busy machine growing takes a while
    arguments = ["--formats", "caffemodel", "--number", "6", "--seconds", seconds]
    arguments += ["--mebibytes", "200"]
    seeds = fuzz.intact_files(["caffemodel"])["caffemodel"]
    entropy = [0, fuzz.zlib.crc32(b"caffemodel")]
    files = [fuzz.damaged(seeds, entropy, n)[2] for n in range(6)]
    bad = [n for n, file in enumerate(files) if fuzz.zlib.crc32(file) % 4 == 0]
    assert 0 < len(bad) < 6
    fuzz.__dict__["__file__"] = str(script)
    (tmp_path / "seeds").write_bytes(pickle.dumps({"caffemodel": seeds}))
    assert fuzz.main(arguments) == 1
    output = capsys.readouterr()
    row = output.out.splitlines()[2].split("|")
    columns = dict(zip(("raised", "crashed", "hung", "grown"), map(int, row[5:9]), strict=True))
    assert columns.pop(kind.strip()) == len(bad)
    assert not any(columns.values())
    assert output.err.count("FAILED: caffemodel") == len(bad)
    assert int(row[2]) == 6
