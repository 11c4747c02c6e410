"""Source and command line as Markdown, read from the code when the site is built."""

import argparse
import ast
import pathlib

from hallujax import cli

ROOT = pathlib.Path(__file__).parents[2]


def source(name: str) -> str:
    """The code of a function, method or class without its docstring, as a fenced block; `name` as in an import."""
    path, rest = _module(name)
    text = path.read_text()
    scope: ast.AST = ast.parse(text)
    for part in rest:
        scope = next(node for node in scope.body if getattr(node, "name", None) == part)
    first, last = min([scope.lineno, *(d.lineno for d in scope.decorator_list)]), scope.end_lineno
    said = scope.body[0] if ast.get_docstring(scope) is not None else None
    lines = text.splitlines()
    kept = [
        lines[number - 1]
        for number in range(first, last + 1)
        if said is None or not said.lineno <= number <= said.end_lineno
    ]
    indent = len(kept[0]) - len(kept[0].lstrip())
    title = path.relative_to(ROOT).as_posix()
    return _fenced("python", title, "\n".join(line[indent:] for line in kept))


def file(path: str, language: str = "python") -> str:
    """A whole file as a fenced block."""
    return _fenced(language, path, (ROOT / path).read_text().rstrip())


def commands() -> str:
    """What `hallujax COMMAND --help` prints, a heading a command."""
    parser = cli._parser()
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    sections = []
    for name, command in subparsers.choices.items():
        command.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100, max_help_position=28)
        sections.append(f"## `{name}`\n\n{_fenced('text', '', command.format_help().rstrip())}")
    return "\n\n".join(sections)


def _module(name: str) -> tuple[pathlib.Path, list[str]]:
    """The file of the longest part of a dotted name that is a module, and the rest of the name."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        stem = ROOT.joinpath(*parts[:length])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.exists():
                return path, parts[length:]
    raise LookupError(f"no module of {name} in {ROOT}")


def _fenced(language: str, title: str, text: str) -> str:
    titled = f' title="{title}"' if title else ""
    return f"````{language}{titled}\n{text}\n````"
