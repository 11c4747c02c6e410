"""What the site's build does beyond Markdown: pages with `rendered: true` are Jinja templates, and TeX becomes MathML.

Whatever the templates call is below, so that tables, signatures and drawings come from the files they tell of.
"""

import jinja2
import mathematics
import modules
import python_source
import results

_TEMPLATES = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_TEMPLATES.globals |= {
    "other_results": results.others,
    "source": python_source.source,
    "file": python_source.file,
    "commands": python_source.commands,
    "module_graph": modules.graph,
}


def on_page_markdown(markdown: str, *, page, **_) -> str | None:
    """Renders the templates of a page that says it has some."""
    return _TEMPLATES.from_string(markdown).render() if page.meta.get("rendered") else None


def on_page_content(html: str, **_) -> str:
    """Draws the page's formulas."""
    return mathematics.to_mathml(html)
