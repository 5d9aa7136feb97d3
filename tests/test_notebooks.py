"""The notebooks and the guide on the real model: they run, show figures and sentences, and are committed as they should be."""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parent.parent / "python"
sys.path[:0] = [str(PYTHON / "notebooks"), str(PYTHON / "guide")]

import build as guide  # noqa: E402  (after the path)
import logitd  # noqa: E402
import run as notebooks  # noqa: E402

SEEN = {  # figures, and a sentence with numbers that each must come to
    "1-distributions": (4, r"most likely token is `·Paris` with \d+\.\d %"),
    "2-temperature": (3, r"mean entropy rises at 31 of 31 steps"),
    "3-structure": (3, r"In \*\*code\*\* the median entropy is highest before: .* \(\d\.\d\d nats\)"),
    "4-state": (4, r"The claim multiplies the false capital's probability by \d+"),
    "5-throughput": (2, r"\*\*Batch\*\*: [\d,]+ positions/s for one position alone"),
}


def test_every_notebook_is_tested():
    assert [path.stem for path in notebooks.NOTEBOOKS] == sorted(SEEN)


@pytest.mark.parametrize("name", SEEN)
def test_committed_without_outputs(name):
    notebook = json.loads((PYTHON / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.usefixtures("logitd")
@pytest.mark.parametrize("name", SEEN)
def test_runs_and_says_what_it_saw(name, model_path, tmp_path):
    model_path("smollm2")
    executed = notebooks.execute(PYTHON / "notebooks" / f"{name}.ipynb")
    data = [o.get("data", {}) for cell in executed.cells for o in cell.get("outputs", [])]
    said = "\n".join(d["text/markdown"] for d in data if "text/markdown" in d)
    n_figures, sentence = SEEN[name]
    assert sum("image/png" in d for d in data) == n_figures
    assert re.search(sentence, said) and "nan" not in said.lower().split()
    if name == "2-temperature":
        assert said.count(": 0 of 49,152 values differ in any bit") == 4
    notebooks.render(executed, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', page)) == n_figures


def code_of(path):
    """All Python of a document, as somebody would paste it, and the outputs that it shows."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown = [following for (kind, _), (_, following) in itertools.pairwise(blocks) if kind == "python"]
    return "".join(block for kind, block in blocks if kind == "python"), shown


@pytest.mark.usefixtures("logitd")
@pytest.mark.parametrize("name", ["../README.md", "README.md", "guide/from-logits-to-insight.md"])
def test_the_code_of_documents_runs_as_it_stands(name, model_path, capsys):
    model_path("smollm2")
    code, shown = code_of(PYTHON / name)
    known = {}
    exec(code, known)
    said = capsys.readouterr().out
    if name == "../README.md":
        assert said.splitlines()[:2] == shown[0].splitlines()[:2]
        assert numbers(said)[0] == pytest.approx(numbers(shown[0])[0], abs=1e-5)
    if "kl_divergence" in code:
        nats = float(logitd.kl_divergence(known["p"], known["q"]))
        assert f"KL(claim ‖ nothing) is {nats:.2f} nats" in (PYTHON / name).read_text(encoding="utf-8")
    if "server" in known:
        known["client"].close()
        known["server"].close()


def numbers(text):
    """Its numbers, and the text without them."""
    number = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
    return [float(n.replace(",", "")) for n in number.findall(text)], number.sub("#", text)


@pytest.mark.usefixtures("logitd")
def test_the_guide_says_what_is_measured(model_path, tmp_path):
    """The committed text is the one that build.py makes, its numbers within rounding."""
    model_path("smollm2")
    guide.build(tmp_path)
    committed, made = ((folder / "from-logits-to-insight.md").read_text(encoding="utf-8") for folder in (guide.HERE, tmp_path))
    (old, old_words), (new, new_words) = numbers(committed), numbers(made)
    assert new_words == old_words and new == pytest.approx(old, rel=0.02, abs=0.011)
    pictures = re.findall(r"\]\((\S+\.svg)\)", committed)
    assert len(pictures) == 4 and all((tmp_path / p).exists() and (guide.HERE / p).exists() for p in pictures)
