"""Every position and every token of the vocabulary of both models on three texts, against float64: check_server.py.

Minutes to an hour a text, and it needs what tests/oracle/requirements.txt lists: ./dev test --long, or by hand.
"""

import pathlib
import subprocess
import sys

import pytest

ORACLE = pathlib.Path(__file__).parent / "oracle"
TEXTS = pathlib.Path(__file__).parent / "fixtures" / "texts"


@pytest.mark.long
@pytest.mark.parametrize("text", ["english", "code", "multilingual"])
@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_whole_distributions(start_server, model_path, model, text):
    pytest.importorskip("oracle", reason="torch and transformers are not installed", exc_type=ImportError)
    server = start_server(model_path(model))
    command = [sys.executable, ORACLE / "check_server.py", "--url", server.url, "--model", model_path(model)]
    done = subprocess.run([*command, "--text", TEXTS / f"{text}.txt"], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
