"""Writes the tables into the pages, where these say from which file, so that they can be read without the site.

python docs/_code/fill.py            # writes them
python docs/_code/fill.py --check    # exit code 1, and the pages' names, if some are not what the files say

A page has `<!-- accuracies("FILE.csv") -->`, any call of `results` that makes a table, and `<!-- end -->` below it.
"""

import pathlib
import re
import sys

import jinja2
import results

DOCS = pathlib.Path(__file__).parents[1]
_TABLE = re.compile(r"<!-- (?P<call>\w+\(.*?\)) -->\n.*?<!-- end -->", re.DOTALL)
_CALLS = jinja2.Environment(undefined=jinja2.StrictUndefined)
_CALLS.globals = {"accuracies": results.accuracies, "benchmark": results.benchmark, "regrets": results.regrets}


def filled(page: str) -> str:
    """A page's Markdown with every table as its file has it."""

    def table(found: re.Match) -> str:
        rows = _CALLS.from_string(f"{{{{ {found['call']} }}}}").render()
        return f"<!-- {found['call']} -->\n\n{rows}\n\n<!-- end -->"

    return _TABLE.sub(table, page)


def main(check: bool) -> int:
    stale = []
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            stale.append(path.name)
            if not check:
                path.write_text(after, encoding="utf-8")
    print("\n".join(stale) or "all tables are what the files say")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
