"""The site: built strictly without a network, every page found, links and numbers right, nothing fetched from afar."""

import csv
import html
import html.parser
import os
import re
import statistics
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest
from page import ROOT, accuracies_of

from configs import systems as systems_config
from hallujax.experiment import read_config

sys.path.append(str(ROOT / "tests" / "evaluation"))

from headless_chromium import CHROMIUM, browse

PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, by a process that can reach no host."""
    folder = tmp_path_factory.mktemp("site")
    refused = "http://127.0.0.1:9"  # nobody listens there
    environment = os.environ | {"http_proxy": refused, "https_proxy": refused, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Tags(html.parser.HTMLParser):
    """`links` (href and src), `ids`, and `rows`: the texts of every table row's cells."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.rows, self._cell = [], set(), [], None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[key] for key in ("href", "src") if found.get(key)]
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._cell = self.rows[-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, text):
        if self._cell is not None:
            self._cell[-1] += text


@pytest.fixture(scope="module")
def tags(site):
    return {path: Tags(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_navigation(site):
    start = (site / "index.html").read_text()
    navigation = start[
        start.index('<nav class="md-nav md-nav--primary"') : start.index("</nav>", start.rindex("md-nav__item"))
    ]
    linked = set(re.findall(r'href="([^"#]+\.html)"', navigation))
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in PAGES}
    assert linked == pages


def test_links_within_the_site_lead_somewhere(tags, site):
    wrong = []
    for page, found in tags.items():
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists() or (
                parts.fragment and target in tags and unquote(parts.fragment) not in tags[target].ids
            ):
                wrong.append(f"{page.relative_to(site)}: {link}")
    assert not wrong


def test_no_page_fetches_anything_from_elsewhere(site):
    """Scripts, styles, fonts and pictures; links that a reader follows are another thing."""
    fetched = re.compile(r"""<(?:script|img|iframe|source)[^>]*\bsrc=["']?(https?:)?//|<link[^>]*(https?:)?//""")
    for path in site.rglob("*.html"):
        found = [match[0] for match in fetched.finditer(path.read_text()) if 'rel="canonical"' not in match[0]]
        assert not found, f"{path}: {found}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text()), path


@pytest.mark.parametrize("page", ["index", "results"])
def test_the_table_is_the_csv(page, tags, site):
    path = ROOT / "benchmarks/results/mocap_rgbd_standard_cross_subject.csv"
    with open(path, newline="") as file:
        measured = list(csv.DictReader(file))
    shown = {row[0]: row for row in reversed(tags[site / f"{page}.html"].rows) if row}
    for row in measured:
        _, tested_on, accuracy, *seeds, difference, recovered, passes, published = shown[row["method"]]
        assert tested_on.replace(" ", "") == row["test_modalities"]
        found = accuracies_of(row)
        assert accuracy == f"{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f}"
        assert seeds == ([f"{seed:.1f}" for seed in found] if page == "results" else [])
        points = row["difference"] and f"{100 * float(row['difference']):+.1f}"
        assert difference.split(" (")[0] == (points or "-")
        assert recovered == (f"{100 * float(row['recovered']):.0f}" if row["recovered"] else "-")
        assert passes.replace(",", "") == row["clip_passes"]
        assert published == (row["ntu_cross_subject"] or "-")


def test_the_pages_have_the_tables_of_the_files():
    done = subprocess.run([sys.executable, "docs/_code/fill.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run python docs/_code/fill.py: {done.stdout}{done.stderr}"


def test_the_conditions_are_the_csv():
    page = (ROOT / "docs/results.md").read_text()
    said = page[page.index("## Other conditions") : page.index("## Objects")]
    with open(ROOT / "benchmarks/results/compare_quick_conditions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "Hallucination from depth, as long"]
    rows = [row for row in rows if row["role"] == "control"]
    assert {row["run"] for row in rows} == {"plain", "few", "label_noise", "views", "poor_rgb", "slow"}
    for row in (row for row in rows if "as long as step 3" in row["reference"]):
        points, low, high = (f"{float(row[key]):+.1f}" for key in ("points", "low", "high"))
        labels, losses = (f"{100 * float(row[key]):.1f}" for key in ("reference_accuracy", "accuracy"))
        assert f"| {labels} | {losses} | {points} ({low} to {high}) |" in said, row["run"]


def test_every_system_is_measured_on_quick(tags, site):
    """As many systems as the page says have three seeds in the small benchmark's files, and a row on a page."""
    systems = list(read_config(systems_config.get_config()).systems)
    said = re.search(r"All (\d+) systems of `configs/systems.py`", (ROOT / "docs/quick.md").read_text())
    measured = set()
    for name in ("cross_subject", "ablations", "controls"):
        with open(ROOT / f"benchmarks/results/mocap_rgbd_quick_{name}.csv", newline="") as file:
            measured |= {row["method"] for row in csv.DictReader(file) if all(row[f"seed{seed}"] for seed in range(3))}
    assert {system.name for system in systems} <= measured and len(systems) == int(said[1])
    shown = {row[0] for page in ("quick", "results") for row in tags[site / f"{page}.html"].rows if row}
    assert {system.name for system in systems} <= shown


def test_timings_are_the_csv(tags, site):
    shown = tags[site / "performance.html"].rows
    for name, columns in (
        ("train_step.csv", ("arm", "median_ms", "min_ms", "max_ms", "clips_per_s")),
        ("huge_pages.csv", ("setting", "arm", "rounds", "median_ms", "min_ms", "max_ms")),
    ):
        with open(ROOT / "benchmarks/results" / name, newline="") as file:
            for row in csv.DictReader(file):
                assert [row[column] for column in columns] in [cells[: len(columns)] for cells in shown]


def test_formulas_are_drawn(site):
    page = (site / "mathematics.html").read_text()
    assert page.count("<math") > 40 and "\\(" not in page and "arithmatex" not in page


def test_the_code_shown_is_the_code(site):
    shown = re.sub(r"<[^>]+>", "", (site / "mathematics.html").read_text())
    assert "return (1.0 - imitation) * cross_entropy(logits, labels) + imitation * soft" in html.unescape(shown)


def test_every_part_of_the_code_is_drawn(site):
    page = (site / "architecture.html").read_text()
    drawn = {name for label in re.findall(r"<text[^>]*>([^<]+)</text>", page) for name in label.split(", ")}
    folders = {path.parent.name for path in (ROOT / "hallujax").glob("*/__init__.py")}
    assert drawn == folders | {"experiment", "game", "losses"}


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_their_window_and_ask_for_nothing_else(width, site):
    """At a desk and on a phone, from the disk: no page is wider than its window, all it asks for is the site's."""
    for name in ("index", "tutorial", "mathematics", "architecture", "results", "reference/losses"):
        with browse(site / f"{name}.html", width=width, height=900) as page:
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} pixels wide"
            assert not [url for url in page.requests if not url.startswith((site.as_uri(), "data:", "blob:"))]
            if name == "mathematics":
                assert page.evaluate("document.querySelector('math').getBoundingClientRect().width") > 0
