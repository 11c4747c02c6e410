"""The drawing of which part imports which, made of the import statements when the site is built."""

import ast
import pathlib
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[2]
SINGLE_FILES = ("experiment", "game", "losses")  # of hallujax, beside its folders; the others serve all parts alike
WIDTH, HEIGHT, GAP_X, GAP_Y = 132, 44, 28, 56


def imports() -> dict[str, set[str]]:
    """`{part: the parts it imports}`, a part being a folder of hallujax, one of its `SINGLE_FILES`, or data_prep."""
    package = ROOT / "hallujax"
    parts = {folder.name: folder for folder in package.iterdir() if list(folder.glob("*.py"))}
    parts |= {name: package / f"{name}.py" for name in SINGLE_FILES} | {"data_prep": ROOT / "data_prep"}
    found: dict[str, set[str]] = {}
    for name, path in parts.items():
        found[name] = set()
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    modules = [f"hallujax.{a.name}" for a in node.names] if node.module == "hallujax" else [node.module]
                    found[name] |= {_part(module) for module in modules} & parts.keys() - {name}
    return found


def graph() -> str:
    """The drawing as SVG: who is above imports who is below, and arrows that others imply are left out."""
    edges = imports()
    reached = {part: _reachable(edges, part) for part in edges}
    # Parts that import each other, if by detours, share a row.
    rows: dict[str, int] = {}

    def row(part: str) -> int:
        if part not in rows:
            circle = {other for other in reached[part] | {part} if part in reached[other] or other == part}
            below = {low for member in circle for low in edges[member] if low not in circle}
            depth = 1 + max(map(row, sorted(below)), default=-1)
            rows.update(dict.fromkeys(circle, depth))
        return rows[part]

    for part in sorted(edges):
        row(part)
    return _draw(rows, {part: _direct(part, edges, reached) for part in edges})


def _part(module: str) -> str:
    first, *rest = module.split(".")
    return rest[0] if first == "hallujax" and rest else first


def _reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = edges[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def _direct(part: str, edges: Mapping[str, set[str]], reached: Mapping[str, set[str]]) -> set[str]:
    """What a part imports, without what one of these brings along anyway."""
    implied = {low for low in edges[part] for mid in edges[part] - {low} if low in reached[mid] and mid not in reached[low]}
    return edges[part] - implied


def _draw(rows: Mapping[str, int], edges: Mapping[str, set[str]]) -> str:
    layers = [sorted(part for part in rows if rows[part] == i) for i in reversed(range(max(rows.values()) + 1))]
    widest = max(map(len, layers))
    width = widest * (WIDTH + GAP_X) + GAP_X
    place = {}
    for i, layer in enumerate(layers):
        left = (width - len(layer) * (WIDTH + GAP_X) + GAP_X) / 2
        for j, part in enumerate(layer):
            place[part] = (left + j * (WIDTH + GAP_X), GAP_X + i * (HEIGHT + GAP_Y))
    height = 2 * GAP_X + len(layers) * (HEIGHT + GAP_Y) - GAP_Y
    shapes = []
    for part in sorted(edges):
        x, y = place[part]
        for low in sorted(edges[part]):
            to_x, to_y = place[low]
            if to_y == y:
                if part > low and part in edges[low]:
                    continue  # drawn from the other end, with two heads
                sign = 1 if to_x > x else -1
                ends = (x + WIDTH / 2 + sign * WIDTH / 2, y + HEIGHT / 2, to_x + WIDTH / 2 - sign * WIDTH / 2)
                both = ' marker-start="url(#head)"' if part in edges[low] else ""
                shapes.append(f'<path d="M{ends[0]} {ends[1]} H{ends[2]}" marker-end="url(#head)"{both}/>')
                continue
            start, end, bend = y + HEIGHT, to_y - 2, GAP_Y / 2
            a, b = x + WIDTH / 2, to_x + WIDTH / 2
            shapes.append(
                f'<path d="M{a} {start} C{a} {start + bend} {b} {end - bend} {b} {end}" marker-end="url(#head)"/>'
            )
    for part, (x, y) in place.items():
        shapes.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>')
        shapes.append(f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 5}">{part}</text>')
    arrow = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    title = "Which part of the code imports which"
    return (
        f'<figure class="drawing"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
        f"<defs>{arrow}</defs>{''.join(shapes)}</svg></figure>"
    )
