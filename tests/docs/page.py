"""A page of docs/ as a program: its blocks in their order, as one bash script.

`sh` runs; `python` runs in a process of its own; `python title="FILE"` is written to that file; `diff title="FILE"` is
applied to it. Blocks of any other language are for reading.
"""

import base64
import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[2]
_BLOCK = re.compile(r'^(`{3,})(\w+)(?: title="([^"]*)")?\n(.*?)^\1$', re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str


def blocks(path):
    """The fenced blocks of a Markdown file."""
    found = _BLOCK.findall(path.read_text())
    return [Block(language, title, text) for _, language, title, text in found]


def script(path):
    """The page as bash; `python` is the one that runs this."""
    parts = ["set -eu", f'python() {{ {sys.executable} "$@"; }}']
    for number, block in enumerate(blocks(path), 1):
        parts.append(f"echo '== block {number}: {block.language} {block.title}' >&2")
        if block.language == "sh":
            parts.append(block.text)
        elif block.language == "python" and block.title:
            parts.append(_piped(block.text, f"cat > {block.title}"))
        elif block.language == "python":
            parts.append(_piped(block.text, "python -"))
        elif block.language == "diff":
            parts.append(_piped(block.text, f"python {__file__} {block.title}"))
    return "\n".join(parts)


def patch(text, diff):
    """`text` with the hunks of `diff` applied, which `@@` separates; each must fit in exactly one place.

    Raises:
      ValueError: it fits nowhere, or in several places.
    """
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        if text.count(before) != 1:
            raise ValueError(f"this fits in {text.count(before)} places:\n{before}")
        text = text.replace(before, after)
    return text


def _piped(text, command):
    return f"echo {base64.b64encode(text.encode()).decode()} | base64 -d | {command}"


def accuracies_of(row):
    """Of the three seeds of a table's row, in percent: four decimals of so many clips say how many were right."""
    clips = int(row["test_clips"])
    return [100 * round(float(row[f"seed{seed}"]) * clips) / clips for seed in range(3)]


if __name__ == "__main__":
    file = pathlib.Path(sys.argv[1])
    file.write_text(patch(file.read_text(), sys.stdin.read()))
