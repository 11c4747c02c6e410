"""The drawing of which part of hallujax imports which, made of the import statements when the site is built."""

import ast
import pathlib
from collections.abc import Mapping

PACKAGE = pathlib.Path(__file__).parents[2] / "hallujax"
SINGLE_FILES = ("experiment", "game", "losses")  # beside the folders; the other files serve all parts alike
LETTER, MARGIN, HEIGHT, GAP_X, GAP_Y = 9.2, 34, 44, 26, 56  # of the drawing, in its own units

Part = tuple[str, ...]  # names of a part; several where they import each other


def imports() -> dict[str, set[str]]:
    """`{part: the parts it imports}`; a part is a folder of hallujax or one of its `SINGLE_FILES`."""
    parts = {folder.name: folder for folder in PACKAGE.iterdir() if list(folder.glob("*.py"))}
    parts |= {name: PACKAGE / f"{name}.py" for name in SINGLE_FILES}
    found: dict[str, set[str]] = {name: set() for name in parts}
    for name, path in parts.items():
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    whole = node.module == "hallujax"
                    modules = [f"hallujax.{alias.name}" for alias in node.names] if whole else [node.module]
                    names = {".".join(module.split(".")[1:2]) for module in modules if module.startswith("hallujax.")}
                    found[name] |= names & parts.keys() - {name}
    return found


def graph() -> str:
    """The drawing as SVG: who is above imports who is below; arrows that others imply are left out."""
    edges = _without_circles(imports())
    reached = {part: _reachable(edges, part) for part in edges}
    direct = {
        part: {low for low in lows if not any(low in reached[other] for other in lows - {low})}
        for part, lows in edges.items()
    }
    rows: dict[Part, int] = {}

    def row(part: Part) -> int:
        if part not in rows:
            rows[part] = 1 + max(map(row, sorted(edges[part])), default=-1)
        return rows[part]

    for part in sorted(edges):
        row(part)
    return _draw(rows, direct)


def _without_circles(edges: Mapping[str, set[str]]) -> dict[Part, set[Part]]:
    """The graph with those parts as one that import each other, be it by detours."""
    reached = {name: _reachable(edges, name) for name in edges}
    part_of = {
        name: tuple(sorted({other for other in edges if other in reached[name] and name in reached[other]} | {name}))
        for name in edges
    }
    joined: dict[Part, set[Part]] = {part: set() for part in part_of.values()}
    for name, lows in edges.items():
        joined[part_of[name]] |= {part_of[low] for low in lows} - {part_of[name]}
    return joined


def _reachable(edges: Mapping, start) -> set:
    seen: set = set()
    todo = [start]
    while todo:
        new = edges[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def _draw(rows: Mapping[Part, int], edges: Mapping[Part, set[Part]]) -> str:
    labels = {part: ", ".join(part) for part in rows}
    widths = {part: MARGIN + LETTER * len(label) for part, label in labels.items()}
    middles: dict[Part, float] = {}
    for level in range(max(rows.values()) + 1):
        # Above the middle of what they import, if there is room; from left to right in that order.
        wish = {
            part: sum(middles[low] for low in edges[part]) / len(edges[part]) if edges[part] else 0.0
            for part in sorted(rows)
            if rows[part] == level
        }
        right = -GAP_X
        for part in sorted(wish, key=lambda part: (wish[part], part)):
            middles[part] = max(wish[part], right + GAP_X + widths[part] / 2)
            right = middles[part] + widths[part] / 2
    left = min(middles[part] - widths[part] / 2 for part in rows) - 4
    width = max(middles[part] + widths[part] / 2 for part in rows) + 4 - left
    tops = {part: 4 + (max(rows.values()) - level) * (HEIGHT + GAP_Y) for part, level in rows.items()}
    height = max(tops.values()) + HEIGHT + 4
    shapes = []
    for part in sorted(edges):
        for low in sorted(edges[part]):
            half = widths[part] / 2 - 16
            a = min(max(middles[low], middles[part] - half), middles[part] + half)
            start, b, end = tops[part] + HEIGHT, middles[low], tops[low] - 2
            bend = GAP_Y / 2
            curve = f"M{a:.1f} {start} C{a:.1f} {start + bend} {b:.1f} {end - bend} {b:.1f} {end}"
            shapes.append(f'<path d="{curve}" marker-end="url(#head)"/>')
    for part, label in labels.items():
        x, y = middles[part] - widths[part] / 2, tops[part]
        shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{widths[part]:.1f}" height="{HEIGHT}" rx="6"/>')
        shapes.append(f'<text x="{middles[part]:.1f}" y="{y + HEIGHT / 2 + 5}">{label}</text>')
    arrow = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    return (
        f'<figure class="drawing"><svg viewBox="{left:.1f} 0 {width:.1f} {height}" role="img" '
        f'aria-label="Which part of the code imports which"><defs>{arrow}</defs>{"".join(shapes)}</svg></figure>'
    )
