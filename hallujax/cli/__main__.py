"""`python -m hallujax.cli`."""

from hallujax.cli import entry

entry()
