"""The claims' tables and values in RESULTS.md and README.md are those of the records."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "claims"))

import results_tables
from results_tables import CELLS, CHECKOUT, README, RECORDS, RESULTS, TABLES

FILES = (RESULTS, README)


@pytest.fixture(scope="module")
def committed() -> dict[Path, str]:
    return {file: (CHECKOUT / file).read_text() for file in FILES}


@pytest.fixture(scope="module", autouse=True)
def once() -> Iterator[None]:
    """Make each table and value of the committed records once for all tests."""
    made: dict[results_tables.FromRecord, str] = {}
    text = results_tables.FromRecord.text

    def cached(self: results_tables.FromRecord, records: Path) -> str:
        if records != RECORDS:
            return text(self, records)
        if self not in made:
            made[self] = text(self, records)
        return made[self]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_tables.FromRecord, "text", cached)
        yield


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_files_say_what_the_records_say(file: Path, committed: dict[Path, str]):
    refreshed = results_tables.refresh(file, committed[file])
    assert results_tables.differing(committed[file], refreshed) == [], (
        "run `python experiments/claims/results_tables.py --write`"
    )
    assert committed[file] == refreshed


def test_every_claim_has_been_run():
    assert {name for name, table in TABLES.items() if "|" not in table.text(RECORDS)} == set()


def generated(file: Path, text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each place in a file that the records fill."""
    if file == RESULTS:
        for block in results_tables.BLOCK.finditer(text):
            yield block.span(2)
    for cell in CELLS:
        if cell.file == file:
            row = re.search(rf"^\|[^|]*{re.escape(cell.row)}[^|]*\|.*$", text, re.MULTILINE)
            assert row is not None
            value = f"| {cell.value.text(RECORDS)} |"
            if value != "|  |":  # of a claim that was not run
                start = text.index(value, row.start(), row.end())
                yield start, start + len(value)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_digit_changed_by_hand_is_noticed(file: Path, committed: dict[Path, str]):
    """One digit of each line of every table and of every value, one after the other."""
    text, changed = committed[file], 0
    for start, end in generated(file, text):
        for line in re.finditer(r"(\d)\D*$", text[start:end], re.MULTILINE):
            place = start + line.start(1)
            mutated = text[:place] + str((int(line[1]) + 1) % 10) + text[place + 1 :]
            assert results_tables.refresh(file, mutated) == text
            changed += 1
    assert changed > (60 if file == RESULTS else 1)


@pytest.mark.parametrize(
    ("name", "line", "change"),
    [
        ("caltech", {"setting": "without dropout", "seed": 1}, ("validation", "top1_error")),
        ("caltech", {"setting": "paper", "seed": 2}, ("train", "loss")),
        ("caltech", {"what": "average", "seeds": [0, 1, 2, 3, 4]}, ("top1_error",)),
        ("cifar", {"setting": "LRN, 2/2 pooling", "seed": 0}, ("test_errors",)),
        ("relu_vs_tanh", {"kind": "run", "units": "tanh", "seed": 0}, ("training_errors",)),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_changed_line_of_a_record_is_noticed(name, line, change, committed, tmp_path):
    shutil.copytree(RECORDS, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    (found,) = [of_record for of_record in lines if line.items() <= of_record.items()]
    for key in change[:-1]:
        found = found[key]
    value = found[change[-1]]
    found[change[-1]] = 0.9 * value if isinstance(value, float) else [0.9 * v for v in value]
    path.write_text("".join(json.dumps(of_record) + "\n" for of_record in lines))
    refreshed = results_tables.refresh(RESULTS, committed[RESULTS], tmp_path)
    assert results_tables.differing(committed[RESULTS], refreshed)


def test_a_record_that_is_damaged_is_not_taken_for_one_without_runs(committed, tmp_path):
    shutil.copytree(RECORDS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cifar.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match=r"cifar\.jsonl:1"):
        results_tables.refresh(RESULTS, committed[RESULTS], tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    refreshed = results_tables.refresh(RESULTS, committed[RESULTS], tmp_path)
    assert refreshed.count("-->\nNot run.\n<!-- end -->") == len(TABLES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<!-- table: dropout -->", "", "dropout"),
        ("<!-- table: dropout -->", "<!-- table: dropuot -->", "dropout, dropuot"),
        ("<!-- table: dropout -->", "<!-- table: dropout -->\n<!-- table: depth -->", "depth"),
        ("<!-- end -->", "", "each table must be there once"),
        ("| the same after 12 epochs |", "| the same after 12 |", "has 0; correct"),
        ("| value (spread) |", "| value |", "column `value \\(spread\\)`"),
    ],
)
def test_a_place_that_is_missing_or_unknown_is_named(old, new, message, committed):
    assert old in committed[RESULTS]
    with pytest.raises(ValueError, match=message):
        results_tables.refresh(RESULTS, committed[RESULTS].replace(old, new, 1))


def test_every_recorded_run_of_a_claim_is_in_a_table():
    """A setting that no table shows would be a result that nobody reads."""
    shown = "\n".join(table.text(RECORDS) for table in TABLES.values())
    for path in RECORDS.glob("*.jsonl"):
        for text in path.read_text().splitlines():
            if setting := json.loads(text).get("setting"):
                assert f"| {setting} |" in shown, (path.name, setting)


def test_the_script_prints_compares_and_writes(monkeypatch, tmp_path, capsys):
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / file, tmp_path / file)
    monkeypatch.setattr(results_tables, "CHECKOUT", tmp_path)
    results_tables.main(results_tables.Arguments())
    assert TABLES["dropout"].text(RECORDS) in capsys.readouterr().out
    path = tmp_path / RESULTS
    path.write_text(path.read_text().replace("92.65", "92.56"))
    with pytest.raises(ValueError, match=r"RESULTS\.md: differs .*92\.65.*; rerun with --write"):
        results_tables.main(results_tables.Arguments())
    results_tables.main(results_tables.Arguments(write=True))
    assert path.read_text() == (CHECKOUT / RESULTS).read_text()
