"""RESULTS.md: links lead somewhere, commands are accepted, README.md's numbers are in it."""

import functools
import importlib
import re
import shlex
from collections.abc import Iterator

import pytest

from alexnet_jax import main as training
from alexnet_jax.cli.arguments import options
from tests.test_readme import CHECKOUT, TOP, check_options, heads

EXPERIMENTS = CHECKOUT / "experiments"
RESULTS = EXPERIMENTS / "RESULTS.md"
# What stands for a value in a command of RESULTS.md.
PLACEHOLDERS = {"$seed": "0", "S": "0", "N": "8"}


@functools.cache
def text() -> str:
    return RESULTS.read_text()


@functools.cache
def sections() -> dict[str, str]:
    """Return the text under each heading by the end of a link to it."""
    parts = re.split(r"^(#+ .*)$", text(), flags=re.MULTILINE)[1:]
    return {"".join(heads(head)): body for head, body in zip(parts[::2], parts[1::2], strict=True)}


def commands(part: str) -> Iterator[list[str]]:
    """Yield the words of each command in an indented block: `python ...`, without its settings."""
    for block in re.findall(r"(?:^ {4}.*\n)+", part, re.MULTILINE):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if "python " not in line or not re.match(r" {4}([A-Z_]+=\S+ )*python ", line):
                continue
            words = shlex.split(re.sub(r"[][]", "", line), comments=True)
            words = words[words.index("python") + 1 :]
            yield [PLACEHOLDERS.get(w, w).replace("$seed", PLACEHOLDERS["$seed"]) for w in words]


def all_commands() -> list[list[str]]:
    return list(commands(text()))


def test_every_link_leads_somewhere():
    targets = re.findall(r"\]\(([^)\s]+)\)", text())
    assert len(targets) > 40
    for target in targets:
        file, _, anchor = target.partition("#")
        linked = EXPERIMENTS / file if file else RESULTS
        assert linked.exists(), target
        assert not anchor or anchor in heads(linked.read_text()), target


def test_headings_are_different():
    titles = re.findall(r"^#+ .*$", text(), re.MULTILINE)
    assert len(sections()) == len(titles)


def test_every_link_to_a_section_leads_there():
    """From the READMEs, the notebooks and the comments of all files."""
    found = 0
    for path in CHECKOUT.rglob("*"):
        inside = path.relative_to(CHECKOUT).parts[0]
        if inside.startswith(".") or path.suffix not in (".md", ".py", ".ipynb", ".toml"):
            continue
        for anchor in re.findall(r"RESULTS\.md#([\w-]+)", path.read_text()):
            assert anchor in sections(), f"{path}: {anchor}"
            found += 1
    assert found > 4


def test_every_figure_is_shown():
    shown = text() + TOP.read_text() + (EXPERIMENTS / "README.md").read_text()
    for path in (EXPERIMENTS / "figures").iterdir():
        assert f"figures/{path.name})" in shown, path


def rows_of_the_readme() -> Iterator[tuple[str, str]]:
    """Yield the section that a row of README.md's results links to, and the row."""
    table = TOP.read_text().partition("## Results")[2].partition("\n\nEach row")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(lines) >= 4
    for line in lines:
        linked = re.match(r"\| \[[^]]*\]\(experiments/RESULTS\.md#([\w-]+)\) \|", line)
        assert linked is not None, f"links to no section of RESULTS.md: {line}"
        yield linked[1], line


def test_each_result_of_the_readme_links_to_its_command():
    for anchor, line in rows_of_the_readme():
        assert list(commands(sections()[anchor])), f"no command in {anchor}: {line}"


def test_each_number_of_the_readmes_results_is_in_results():
    part = TOP.read_text().partition("## Results")[2].partition("\n## ")[0]
    numbers = set(re.findall(r"\d+\.\d+", part))
    assert len(numbers) > 10
    assert {number for number in numbers if number not in text()} == set()


def test_training_commands_resolve_to_a_configuration():
    found = [words[2:] for words in all_commands() if words[:2] == ["-m", "alexnet_jax.main"]]
    assert len(found) >= 4
    for words in found:
        training.parse(words)
    with pytest.raises(ValueError, match=r"--schedule\.milestone: no such option"):
        training.parse([*found[0], "--schedule.milestone", "3"])


def test_the_command_of_caltech101_is_the_run_that_was_measured():
    part = sections()["caltech-101-from-scratch-the-full-network-on-two-devices"]
    (words,) = commands(part)
    config = training.parse(words[2:]).config
    assert (config.preset, config.data.validation_fraction) == ("photos", 0)
    schedule = config.schedule
    assert (schedule.kind, schedule.epochs, schedule.eval_every) == ("step", 36, 2)
    assert schedule.milestones == (28, 34)
    assert config.model.variant == "two_towers"


def test_other_commands_name_options_that_exist():
    found = 0
    for words in all_commands():
        if words[0] != "-m" or words[1] == "alexnet_jax.main":
            continue
        known = options(importlib.import_module(words[1]).Command)
        assert {word for word in words if word.startswith("--")} <= set(known), words
        found += 1
    assert found >= 3


def test_scripts_exist():
    scripts = {words[0] for words in all_commands() if words[0] != "-m"}
    assert len(scripts) > 15
    for name in scripts:
        assert (CHECKOUT / name).is_file(), name


@pytest.mark.slow
def test_scripts_have_the_options_of_their_commands():
    checked = set()
    for words in all_commands():
        named = (words[0], *sorted(word for word in words if word.startswith("--")))
        if words[0] != "-m" and named not in checked:
            check_options(words)
            checked.add(named)
    assert len(checked) > 15
