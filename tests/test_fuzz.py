"""The harnesses of tests/fuzz over their seeds and over every input that once broke one (tests/fuzz/cases), with the
compiler of the build under test. (libFuzzer drives them in `./dev fuzz`.)
"""

import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parent / "fuzz"
HARNESSES = sorted(path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.c"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    subprocess.run([sys.executable, FOLDER / "make_seeds.py", folder], check=True)
    return folder


@pytest.mark.parametrize("harness", HARNESSES)
def test_replay(request, seeds, model_path, harness):
    program = pathlib.Path(request.config.getoption("--build")).resolve() / "tests" / "fuzz" / f"fuzz_{harness}"
    models = f"--models={model_path('smollm2')}:{model_path('gemma3')}"
    folders = [seeds / harness, FOLDER / "cases" / harness]
    done = subprocess.run([program, models, *folders], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{sum(len(list(folder.iterdir())) for folder in folders)} inputs\n"
