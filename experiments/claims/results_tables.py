"""The tables of the paper's claims in RESULTS.md and README.md, made from ../records.

    python experiments/claims/results_tables.py            # print the tables, compare the files
    python experiments/claims/results_tables.py --write    # write what differs into the files

A table of RESULTS.md stands between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is one of
TABLES. Single cells of other tables are named in CELLS by file, row and column. A claim whose runs
are not in the records yet has "Not run." instead of a table. Nothing is trained, and no data is
needed. A test compares the files, so no number in these places can be changed by hand.
"""

import dataclasses
import difflib
import functools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import caltech_baseline
import cifar_pairs
import crops_and_mirrors
import depth
import dropout
import ensemble_of_seeds
import few_photographs
import lighting
import lrn_in_local_net
import lrn_on_cifar
import paper_vs_source2012
import pooling_on_cifar
import record
import relu_vs_tanh
import towers_specialize
import two_towers_vs_half

from alexnet_jax.cli.arguments import parse_command
from alexnet_jax.cli.errors import run_command
from alexnet_jax.storage import atomic

CHECKOUT = Path(__file__).parents[2]
RECORDS = CHECKOUT / "experiments" / "records"
RESULTS, README = Path("experiments/RESULTS.md"), Path("README.md")
BLOCK = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
NOT_RUN = "Not run."

VALUE = "value (spread)"  # a column of the summary
Report = Callable[[Path], str]  # from the path of a record to Markdown
Estimator = Callable[[Path], record.Estimate]


class FromRecord(NamedTuple):
    """Markdown that is made from the record ../records/`name`.jsonl."""

    name: str
    report: Report
    without_runs: str = NOT_RUN

    def text(self, records: Path) -> str:
        """Return the Markdown; `without_runs` if the record lacks its runs."""
        try:
            return self.report(records / f"{self.name}.jsonl")
        except record.NoRuns:
            return self.without_runs


class Cell(NamedTuple):
    """A cell of a table in `file`: its row by the text of the first cell, its column by header."""

    file: Path
    row: str
    column: str
    value: FromRecord


def _caltech(settings: Mapping[str, object]) -> FromRecord:
    return FromRecord("caltech", functools.partial(caltech_baseline.report, settings))


def _pair(pair: cifar_pairs.Pair, epochs: int) -> FromRecord:
    return FromRecord("cifar", functools.partial(cifar_pairs.report, pair, epochs))


SHORT, LONG = cifar_pairs.SHORT.epochs, cifar_pairs.LONG.epochs
TABLES = {
    "paper_vs_source2012": FromRecord("caltech", paper_vs_source2012.table),
    "ensemble_of_seeds": FromRecord("caltech", ensemble_of_seeds.report),
    "towers_specialize": FromRecord("caltech", towers_specialize.report),
    "relu_vs_tanh": FromRecord("relu_vs_tanh", relu_vs_tanh.report),
    "lrn_on_cifar": _pair(lrn_on_cifar.PAIR, LONG),
    "lrn_on_cifar_with_little_decay": _pair(lrn_on_cifar.WITH_LITTLE_DECAY, LONG),
    "lrn_before_pooling": _pair(lrn_on_cifar.BEFORE_POOLING, LONG),
    "lrn_in_local_net": _pair(lrn_in_local_net.PAIR, SHORT),
    "lrn_on_cifar_short": _pair(lrn_on_cifar.PAIR, SHORT),
    "pooling_on_cifar": _pair(pooling_on_cifar.PAIR, SHORT),
    "two_towers_vs_half": _caltech(two_towers_vs_half.SETTINGS),
    "dropout": _caltech(dropout.SETTINGS),
    "dropout_at_best_rates": _caltech(dropout.AT_BEST_RATES),
    "lighting": _caltech(lighting.SETTINGS),
    "few_photographs": FromRecord("few_photographs", few_photographs.table),
    "depth": _caltech(depth.SETTINGS),
    "crops_and_mirrors": _caltech(crops_and_mirrors.SETTINGS),
}


def _minus(other: str, first: str, split: str, column: str) -> Estimator:
    """Return by how much a setting differs from the first one on Caltech-101."""
    scale = 100 if column.endswith("error") else 1

    def estimate(path: Path) -> record.Estimate:
        values = [caltech_baseline.last(path, n, split, column, scale) for n in (first, other)]
        return record.paired(*values)

    return estimate


def _more_error(settings: Mapping[str, object]) -> Estimator:
    """Return the difference of the top-1 errors of two settings on Caltech-101."""
    first, other = settings
    return _minus(other, first, "validation", "top1_error")


def _each_more_error(settings: Mapping[str, object]) -> Report:
    """Return by how much the error of each setting exceeds that of the first, in words."""
    first, *others = settings

    def report(path: Path) -> str:
        estimates = {n: _minus(n, first, "validation", "top1_error")(path) for n in others}
        return "; ".join(f"{name}: {_points(each)}" for name, each in estimates.items())

    return report


def _few_photographs(kind: str) -> Report:
    """Return the error of a setting on each number of photographs."""

    def report(path: Path) -> str:
        names = [name for name in few_photographs.SETTINGS if name.startswith(f"{kind}, ")]
        errors = {
            name.removeprefix(f"{kind}, "): few_photographs.errors(path, name) for name in names
        }
        found = {number: record.estimate(values) for number, values in errors.items() if values}
        return "; ".join(f"{number}: {_percent(each)}" for number, each in found.items())

    return report


def _percent(estimate: record.Estimate) -> str:
    spread = f" ± {estimate.half_width:.1f}" if estimate.number > 1 else ""
    return f"{estimate.mean:.1f}{spread} %" + (" (one seed)" if not spread else "")


def _baseline_error(path: Path) -> record.Estimate:
    errors = caltech_baseline.last(path, caltech_baseline.NAME, "validation", "top1_error", 100)
    return record.estimate(list(errors.values()))


def _points(estimate: record.Estimate) -> str:
    return record.interval(estimate, "points", 1)


def _gain(path: Path) -> str:
    estimate = ensemble_of_seeds.gain(path, "top1_error")
    return record.interval(estimate, "points").replace(")", ", over images)")


def _single_and_average(path: Path) -> str:
    errors = {
        number: [100 * line["top1_error"] for line in ensemble_of_seeds.averages(path, number)]
        for number in (1, 5)
    }
    single, (average,) = errors[1], errors[5]
    spread = f"{min(single):.2f} to {max(single):.2f}; {len(single)} seeds"
    mean = record.estimate(single).mean
    return f"{mean:.2f} % top-1 ({spread}); average of the five: {average:.2f} %"


def _specialized(path: Path) -> str:
    runs = towers_specialize.measured(path, caltech_baseline.NAME)
    numbers = {m: sum(run[m]["differs"] for run in runs) for m in towers_specialize.MEASURES}
    return ", ".join(f"{m} in {number} of {len(runs)} runs" for m, number in numbers.items())


def _fewer_epochs(path: Path) -> str:
    ratio = relu_vs_tanh.ratio(path)
    times = f"{ratio.mean:.1f} ± {ratio.half_width:.1f} times fewer epochs"
    return f"25 % training error in {times} ({ratio.number} seeds; the paper: 6 times)"


def _summary(
    row: str, name: str, estimate: Estimator, show: Callable[[record.Estimate], str]
) -> tuple[Cell, Cell]:
    """Return the cells of a row of the summary that has a value and the number of its seeds."""
    value = FromRecord(name, lambda path: show(estimate(path)))
    seeds = FromRecord(name, lambda path: str(estimate(path).number), without_runs="")
    return Cell(RESULTS, row, VALUE, value), Cell(RESULTS, row, "seeds", seeds)


CELLS = (
    *_summary(
        "half width, 64 pixel crops, Caltech-101, top-1 error, center view",
        "caltech",
        _baseline_error,
        lambda estimate: f"{estimate} %",
    ),
    *_summary(
        "training loss after 12 epochs, `paper` with std 0.03 in conv3-5 minus `paper`",
        "caltech",
        _minus("paper, 0.03 in conv3-5", "paper", "train", "loss"),
        lambda estimate: record.interval(estimate, "nats"),
    ),
    Cell(
        RESULTS,
        "top-1 error, average of five networks minus one",
        VALUE,
        FromRecord("caltech", _gain),
    ),
    *_summary(
        "epochs to 25 % training error, CIFAR-10, tanh over ReLU",
        "relu_vs_tanh",
        relu_vs_tanh.ratio,
        lambda estimate: f"{estimate.mean:.1f} ± {estimate.half_width:.1f} times as many",
    ),
    *_summary(
        "test error after 40 epochs, CIFAR-10, with LRN minus without",
        "cifar",
        functools.partial(cifar_pairs.difference, lrn_on_cifar.PAIR, LONG),
        _points,
    ),
    *_summary(
        "the same after 12 epochs",
        "cifar",
        functools.partial(cifar_pairs.difference, lrn_on_cifar.PAIR, SHORT),
        _points,
    ),
    *_summary(
        "the same after 40 epochs, LRN before the second pooling, as in the network of 11 %",
        "cifar",
        functools.partial(cifar_pairs.difference, lrn_on_cifar.BEFORE_POOLING, LONG),
        _points,
    ),
    *_summary(
        "the same in the network of 11 %, 12 epochs",
        "cifar",
        functools.partial(cifar_pairs.difference, lrn_in_local_net.PAIR, SHORT),
        _points,
    ),
    *_summary(
        "test error after 12 epochs, CIFAR-10, overlapping pooling minus 2/2",
        "cifar",
        functools.partial(cifar_pairs.difference, pooling_on_cifar.PAIR, SHORT),
        _points,
    ),
    *_summary(
        "top-1 error, one tower of half the width minus two towers",
        "caltech",
        _more_error(two_towers_vs_half.SETTINGS),
        _points,
    ),
    *_summary(
        "top-1 error, without dropout minus with",
        "caltech",
        _more_error(dropout.SETTINGS),
        _points,
    ),
    *_summary(
        "the same, each side at its own learning rate",
        "caltech",
        _more_error(dropout.AT_BEST_RATES),
        _points,
    ),
    *_summary(
        "top-1 error, without PCA lighting minus with",
        "caltech",
        _more_error(lighting.SETTINGS),
        _points,
    ),
    Cell(
        RESULTS,
        "top-1 error, a convolution removed minus with all",
        VALUE,
        FromRecord("caltech", _each_more_error(depth.SETTINGS)),
    ),
    Cell(
        RESULTS,
        "top-1 error, without crops, mirrors, either, minus with both",
        VALUE,
        FromRecord("caltech", _each_more_error(crops_and_mirrors.SETTINGS)),
    ),
    *(
        Cell(RESULTS, row, VALUE, FromRecord("few_photographs", _few_photographs(kind)))
        for row, kind in (
            ("test top-1 error, so many photographs of Caltech-101, preset small", "small"),
            ("the same, the full network for 36 epochs", "full size"),
        )
    ),
    Cell(
        RESULTS,
        "towers that differ in color or orientation, p < 0.01",
        VALUE,
        FromRecord("caltech", _specialized),
    ),
    Cell(
        README,
        "half width, 64 pixel crops, 40 epochs, ten views",
        "error",
        FromRecord("caltech", _single_and_average),
    ),
    Cell(README, "ReLU against tanh", "error", FromRecord("relu_vs_tanh", _fewer_epochs)),
)


def refresh(file: Path, text: str, records: Path = RECORDS) -> str:
    """Return the text of `file`, a path in the checkout, with what the records say in its places.

    Raises:
        ValueError: a place is missing, occurs twice, or has a name that is not in TABLES.
    """
    if file == RESULTS:
        text = _with_tables(text, {name: table.text(records) for name, table in TABLES.items()})
    for cell in CELLS:
        if cell.file == file:
            text = _with_cell(text, cell, cell.value.text(records))
    return text


def _with_tables(text: str, tables: Mapping[str, str]) -> str:
    names = re.findall(r"<!-- table: (.*?) -->", text)
    if sorted(names) != sorted(tables) or len(BLOCK.findall(text)) != len(names):
        wrong = sorted(set(names) ^ set(tables)) or names
        raise ValueError(
            f"{RESULTS}: each table must be there once, from `<!-- table: NAME -->` to "
            f"`<!-- end -->`, and have a line in TABLES; look for {', '.join(wrong)}."
        )
    return BLOCK.sub(
        lambda place: f"<!-- table: {place[1]} -->\n{tables[place[1]]}\n<!-- end -->", text
    )


def _with_cell(text: str, cell: Cell, value: str) -> str:
    lines = text.splitlines(keepends=True)
    columns, found = [], []
    for number, line in enumerate(lines):
        cells = _cells(line)
        if not cells:
            columns = []
        elif not columns:
            columns = cells
        if cells and cell.column in columns and _plain(cells[0]) == cell.row:
            found.append(number)
            cells[columns.index(cell.column)] = value
            lines[number] = "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"
    if len(found) != 1:
        raise ValueError(
            f"{cell.file}: must have one row `{cell.row}` with the column `{cell.column}`, and has "
            f"{len(found)}; correct the file or CELLS."
        )
    return "".join(lines)


def _cells(line: str) -> list[str]:
    """Return the cells of a line of a table; none for any other line."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line[0] == "|" else []


def _plain(cell: str) -> str:
    """Return the visible text of a cell with links."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell)


def differing(old: str, new: str) -> list[str]:
    """Return the lines of `new` that `old` has not, or not in this place."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return [line[1:] for line in lines if line.startswith("+") and not line.startswith("+++")]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments."""

    # write what differs into the files, instead of comparing them
    write: bool = False


def main(args: Arguments) -> None:
    """Print every table; write the files, or compare them with the records."""
    for name, table in TABLES.items():
        print(f"\n{name}\n\n{table.text(RECORDS)}")
    for file in (RESULTS, README):
        old = (CHECKOUT / file).read_text()
        new = refresh(file, old)
        if args.write:
            atomic.write_text(CHECKOUT / file, new)
        elif old != new:
            first, *_ = [*differing(old, new), "fewer lines"]
            raise ValueError(
                f"{file}: differs from the records, which say: {first!r}; rerun with --write."
            )


if __name__ == "__main__":
    sys.exit(
        run_command(
            lambda: main(
                parse_command(
                    Arguments,
                    sys.argv[1:],
                    f"python {sys.argv[0]}",
                    description=(__doc__ or "").partition("\n")[0],
                )
            ),
            Arguments,
            "interrupted; rerun the same command.",
        )
    )
