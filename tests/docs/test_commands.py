"""What README, pages and configurations tell people to type exists, and links lead somewhere."""

import ast
import csv
import re
import shlex
import statistics

import pytest
from page import ROOT, accuracies_of, blocks

from hallujax import cli, losses

README = ROOT / "README.md"
RUN_BY_TESTS = ("docs/tutorial.md", "docs/extend/method.md", "docs/extend/modality.md", "docs/extend/dataset.md")
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path not in [ROOT / page for page in RUN_BY_TESTS])
CONFIGS = sorted((ROOT / "configs").glob("[a-z]*.py"))


def commands(text):
    """The `hallujax ...` lines of a shell text as lists of words."""
    for line in re.split(r"\n|&&", text.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0] == "hallujax":
            yield words[1:]


def check(words, monkeypatch):
    """Parses a command as the command line does, its configuration included, and runs nothing."""
    monkeypatch.chdir(ROOT)
    known, rest = cli._parser().parse_known_args(words)
    assert known.takes_flags or not rest, f"{words}: unknown {rest}"
    own = any(word.startswith("--config=") and not word.startswith("--config=configs/") for word in rest)
    if known.takes_flags and not own:  # a file of the reader's own is not here
        cli.read_flags(rest)


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_is_one(path, monkeypatch):
    for block in blocks(path):
        if block.language in ("sh", "console"):
            for words in commands(block.text):
                check(words, monkeypatch)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_in_a_configuration_is_one(path, monkeypatch):
    said = ast.get_docstring(ast.parse(path.read_text())).replace("\\\n", " ")
    for line in re.findall(r"^ {4}(hallujax .*)$", said, flags=re.MULTILINE):
        for words in commands(line):
            check(words, monkeypatch)


def test_a_wrong_command_would_be_noticed(monkeypatch):
    config = "--config=configs/admd.py:mocap_rgbd,cross_subject"
    (right,) = commands(f"A=1 hallujax train {config} \\\n  --workdir=runs/a  # so")
    assert right == ["train", config, "--workdir=runs/a"]
    check(right, monkeypatch)
    for wrong in ([*right, "--config.training.epoch=3"], [right[0], right[2], "--config=configs/adm.py"]):
        with pytest.raises(cli.HallujaxError):
            check(wrong, monkeypatch)
    with pytest.raises(SystemExit):
        check(["predict", "--modell", "x"], monkeypatch)


def test_links_of_the_readme_lead_somewhere():
    found = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert len(found) > 10
    assert not [link for link in found if not link.startswith("http") and not (ROOT / link).exists()]


def test_the_readme_has_the_tests_command():
    """`.ci/run` takes the first fenced block after the marker."""
    (command,) = re.findall(r"<!-- test-command -->\n```sh\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert command.endswith("pip install -e '.[test,parity]' && pytest\n")


def test_the_readmes_table_is_the_csv():
    shown = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", README.read_text(), flags=re.MULTILINE))
    with open(ROOT / "benchmarks/results/mocap_rgbd_standard_cross_subject.csv", newline="") as file:
        for row in csv.DictReader(file):
            accuracies = accuracies_of(row)
            accuracy = f"{statistics.fmean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}"
            points = [row[key] for key in ("difference", "difference_low", "difference_high")]
            difference = (
                "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * float(each) for each in points)) if points[0] else "-"
            )
            recovered = f"{100 * float(row['recovered']):.0f}" if row["recovered"] else "-"
            cells = [row["test_modalities"].replace("+", " + "), accuracy, difference, recovered, row["clip_passes"]]
            assert shown[row["method"]].split(" | ") == [*cells, row["ntu_cross_subject"] or "-"]


def test_every_loss_is_on_the_page_of_mathematics():
    public = [
        name
        for name, value in vars(losses).items()
        if getattr(value, "__module__", "") == losses.__name__ and name[0] != "_"
    ]
    page = (ROOT / "docs/mathematics.md").read_text()
    assert len(public) > 10 and not [name for name in public if f'source("hallujax.losses.{name}")' not in page]


def test_every_configuration_is_on_the_page_of_training():
    page = (ROOT / "docs/training.md").read_text()
    assert not [path.stem for path in CONFIGS if path.stem != "base" and f"`{path.stem}`" not in page]
