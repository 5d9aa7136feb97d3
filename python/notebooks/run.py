"""Executes the notebooks on the real model, and writes rendered copies; the files themselves stay without outputs.

    python python/notebooks/run.py [--html DIR] [NAME.ipynb …]

Needs the client with what it can use (``pip install './python[all]'``), matplotlib, nbclient, nbconvert and ipykernel.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
CELL_S = 300


def execute(path: Path) -> Any:
    """The notebook with its outputs; CellExecutionError if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])  # of the kernel
    NotebookClient(notebook, timeout=CELL_S, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    return notebook


def render(notebook: Any, path: Path) -> None:
    """Writes it as one self-contained HTML file."""
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    path.write_text(page, encoding="utf-8")


def main() -> int:
    """Exit code: 1 if a notebook failed."""
    parser = argparse.ArgumentParser(description="Executes the notebooks.")
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS)
    parser.add_argument("--html", type=Path, metavar="DIR", help="write rendered copies there")
    args = parser.parse_args()
    failed = False
    for path in args.notebooks:
        start = time.monotonic()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            failed = True
            continue
        if args.html:
            args.html.mkdir(parents=True, exist_ok=True)
            render(notebook, args.html / f"{path.stem}.html")
        print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
