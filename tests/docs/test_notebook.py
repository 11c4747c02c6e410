"""The notebook runs from top to bottom, in a kernel of its own, and is kept without outputs."""

import nbformat
from nbclient import NotebookClient
from page import ROOT

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs}
    (table,) = (
        output.data["text/markdown"]
        for out in said.values()
        for output in out
        if "text/markdown" in output.get("data", {})
    )
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| Depth",
        "| RGB",
        "| ADMD hallucination",
        "| ADMD two-stream",
    ]
    assert sum("image/png" in output.get("data", {}) for out in said.values() for output in out) == 1
    assert (tmp_path / "quickstart/runs/admd/stage.json").exists()


def test_the_notebook_is_kept_without_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) > 5 and not any(cell.outputs or cell.execution_count for cell in cells)
