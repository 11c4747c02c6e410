"""Fills the table of goals in docs/performance.md from benchmarks/results; docs/_code/fill.py fills all others.

python benchmarks/pages.py            # writes it
python benchmarks/pages.py --check    # exit code 1 if it is not what the CSV files say
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from recording import on_huge_pages, read

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- goals: written by benchmarks/pages.py -->\n", "<!-- end of goals -->\n"
HEADER = ("goal", "measured on", "target", "ours", "best peer", "ratio", "", "repeat")
NO_GPU, NOT_YET = "not measured: no GPU", "not measured"
Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table; `ratio` is what is held against `target`."""

    goal: str
    setting: str
    target: str
    ours: str = ""
    peer: str = ""
    ratio: float | None = None
    command: str = ""

    def cells(self) -> list[str]:
        if self.ratio is None:
            return [self.goal, self.setting, self.target, self.ours, "", "", "", f"`{self.command}`"]
        bound, met = float(self.target.split()[1]), "**not met**"
        if self.ratio >= bound if self.target.startswith("≥") else self.ratio <= bound:
            met = "met"
        ratio = f"{self.ratio:.2f}"
        return [self.goal, self.setting, self.target, self.ours, self.peer, ratio, met, f"`{self.command}`"]


def lines(results: Path = RESULTS) -> Iterator[Line]:
    """Every goal, once for each setting that it was measured in."""
    rows = {path.stem: read(path) for path in results.glob("*.csv")}

    def of(name: str) -> list[Row]:
        return rows.get(name, [])

    def steps(goal: str, target: str, on_gpu: bool, peers: tuple[str, ...], wanted: Callable[[Row], bool]):
        for group in grouped(row for row in of("train_step") if is_gpu(row) == on_gpu and wanted(row)):
            arms = {row["arm"]: row for row in group if row["median_ms"]}
            others = {name: float(arms[name]["median_ms"]) for name in peers if name in arms}
            if "hallujax" not in arms or not others:
                continue
            mine, best = arms["hallujax"], min(others, key=others.get)
            ratio = others[best] / float(mine["median_ms"])
            ours, peer = f"{mine['median_ms']} ms", f"{best} {arms[best]['median_ms']} ms"
            yield Line(goal, setting_of(mine), target, ours, peer, ratio, mine["command"])

    def from_rows(goal: str, target: str, found: Iterable[Row], ratio: str, ours: Callable[[Row], str]):
        for row in found:
            if row[ratio]:
                yield Line(goal, setting_of(row), target, ours(row), "", float(row[ratio]), row["command"])

    def all_peers(row: Row) -> bool:
        return row["dtype"] == "bfloat16" and row["system"] == "single_stream" and int(row["clips"]) >= 64

    def single_precision(row: Row) -> bool:
        return row["dtype"] == "float32" and row["system"] == "single_stream"

    def whole(row: Row) -> bool:
        return is_gpu(row) and row["kernel"] == "the step"

    first = "1. GPU training step against the best peer"
    peers = ("flax", "torch", "torch_compile")
    yield from something(steps(first, "≥ 1.25", True, peers, all_peers), Line(first, "", "≥ 1.25", NO_GPU, command=GPU))
    second = "2. GPU step against its roofline"
    found = from_rows(
        second, "≥ 0.80", filter(whole, of("roofline")), "fraction", lambda row: f"{row['measured_ms']} ms"
    )
    yield from something(found, Line(second, "", "≥ 0.80", NO_GPU, command=GPU))
    moved = from_rows(
        "2. GPU: kernels that lay out anew beside convolutions",
        "≤ 0",
        filter(whole, of("roofline")),
        "near_convolutions",
        lambda row: f"{row['transposed_mib']} MiB",
    )
    yield from something(moved, Line("2. GPU: layouts changed beside convolutions", "", "≤ 0", NO_GPU, command=GPU))
    third = "3. ADMD's step over the student's"
    admd = [row for row in of("game") if row["arm"] == "admd"]
    ours = from_rows(third, "≤ 1.40", admd, "time_ratio", lambda row: f"{row['median_ms']} ms")
    yield from something(ours, Line(third, "", "≤ 1.40", NOT_YET, command="python benchmarks/game.py"))
    fourth = "4. clips read while training, over a batch that is there"
    kept = [row for row in of("end_to_end") if row["arm"] == "kept"]
    ours = from_rows(fourth, "≥ 0.97", kept, "ratio", lambda row: f"{row['clips_per_s']} clips/s")
    yield from something(ours, Line(fourth, "", "≥ 0.97", NOT_YET, command="python benchmarks/end_to_end.py"))
    for what, goal, target in (
        ("save_stall", "4. steps that a save stalls", "≤ 1"),
        ("warm", "4. warm start over cold", "≤ 0.2"),
    ):
        one = [row for row in of("startup") if row["what"] == what]
        ours = from_rows(goal, target, one, "ratio", lambda row: f"{row['median_ms']} ms")
        yield from something(ours, Line(goal, "", target, NOT_YET, command="python benchmarks/startup.py"))
    for goal, target, against in (
        ("5. CPU training step against PyTorch channels-last", "≥ 1.00", ("torch",)),
        ("5. the same against plain flax", "≥ 2.00", ("flax",)),
    ):
        ours = steps(goal, target, False, against, single_precision)
        yield from something(ours, Line(goal, "", target, NOT_YET, command="python benchmarks/train_step.py"))
    sixth = "6. eight simulated devices over one"
    eight = [row for row in of("scale") if row["curve"] == "devices" and row["point"] == "8"]
    ours = from_rows(sixth, "≤ 1.25", eight, "ratio", lambda row: f"{row['median_ms']} ms")
    yield from something(ours, Line(sixth, "", "≤ 1.25", NOT_YET, command="python benchmarks/scale.py devices"))
    released = ("authors", "authors_tf")
    for goal, target, mine, against in (
        ("7. reading, a core, against the best loader", "≥ 1.30", "hallujax", ("grain_tfds", "torch_files", "tf_data")),
        ("7. the same against the released layout", "≥ 10", "hallujax", released),
        ("7. the same of frames that are kept, as all are by default", "≥ 10", "hallujax_kept", released),
    ):
        yield from something(
            reading(goal, target, mine, against, of("input")),
            Line(goal, "", target, NOT_YET, command="python benchmarks/input.py"),
        )
    yield from something(conversion(of("conversion")), Line("8. conversion", "", "≥ 3", NOT_YET, command=CONVERSION))


GPU, CONVERSION = "python benchmarks/suite.py gpu", "python benchmarks/conversion.py"


def reading(goal: str, target: str, mine: str, peers: tuple[str, ...], rows: list[Row]) -> Iterator[Line]:
    for group in grouped(row for row in rows if row["threads"] == "1" and row["clips_per_s_and_core"]):
        arms = {row["arm"]: float(row["clips_per_s_and_core"]) for row in group}
        others = {name: arms[name] for name in peers if name in arms}
        if mine in arms and others:
            best, row = max(others, key=others.get), group[0]
            ratio = arms[mine] / others[best]
            said = f"{row['frame']} px, {row['length']} frames a clip, {cores_of(row)}"
            peer = f"{best} {others[best]:.0f} clips/s"
            yield Line(goal, said, target, f"{arms[mine]:.0f} clips/s", peer, ratio, row["command"])


def conversion(rows: list[Row]) -> Iterator[Line]:
    for group in grouped(row for row in rows if row["clips_per_s"]):
        arms = {row["arm"]: float(row["clips_per_s"]) for row in group}
        for goal, target, mine, other, share in (
            ("8. conversion, two workers over one, of linear", "≥ 0.90", "hallujax_2", "hallujax", 0.5),
            ("8. conversion against TFDS on Beam", "≥ 3", "hallujax", "tfds_beam", 1.0),
        ):
            if {mine, other} <= set(arms):
                ours, peer = f"{arms[mine]} clips/s", f"{other} {arms[other]} clips/s"
                ratio = share * arms[mine] / arms[other]
                yield Line(goal, cores_of(group[0]), target, ours, peer, ratio, group[0]["command"])


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that were measured in turn: of one command, machine, system and input."""
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        keys = ("command", "machine", "system", "length", "threads")
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return list(groups.values())


def something(found: Iterator[Line], otherwise: Line) -> list[Line]:
    return list(found) or [otherwise]


def is_gpu(row: Row) -> bool:
    return not row["machine"].endswith(", cpu")


def cores_of(row: Row) -> str:
    """`2 cores` of `PROCESSOR, 2 cores, cpu`; the device's name for another than a CPU."""
    cores, device = row["machine"].split(", ")[-2:]
    return cores if device == "cpu" else device


def setting_of(row: Row) -> str:
    parts = [row.get("system", "").replace("_", " "), f"{row['clips']} clips" if row.get("clips") else ""]
    parts += [f"{row['frame']} px" if row.get("frame") else "", row.get("dtype", ""), cores_of(row)]
    parts += ["huge pages" if on_huge_pages(row) else ""]
    return ", ".join(filter(None, parts))


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with its table as the results have it.

    Raises:
      ValueError: if the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN.strip()!r} or {END.strip()!r}")
    table = [HEADER, ["---"] * len(HEADER), *(line.cells() for line in lines(results))]
    return before + begin + "".join("| " + " | ".join(cells) + " |\n" for cells in table) + end + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the table is another")
    args = parser.parse_args()
    page = PAGE.read_text()
    new = filled(page)
    if args.check:
        return new != page
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
