"""What every Python test may ask for: the built binary, the models, a running server.

    pytest tests [--build DIR]       DIR holds the `logitd` to test; default build
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "oracle"))  # arch_models, stats
sys.path.insert(0, str(ROOT / "python"))  # the client

from serving import Server  # noqa: E402  (after the path)

MODEL_FILES = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}


def pytest_addoption(parser):
    parser.addoption("--build", default=str(ROOT / "build"), help="folder with the logitd to test (default: build)")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; only ./dev test --long runs it")


@pytest.fixture(scope="session")
def logitd(request):
    """Path of the binary under test."""
    path = pathlib.Path(request.config.getoption("--build")).resolve() / "logitd"
    if not path.exists():
        pytest.fail(f"{path} is not built; run ./dev build, or name another folder with --build DIR")
    return path


@pytest.fixture(scope="session")
def model_path():
    """model_path("smollm2" | "gemma3"): the file in the user's cache folder, fetched by ./dev if it is not there."""

    def find(name):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        path = cache / "logitd" / MODEL_FILES[name]
        if path.exists():
            return path
        done = subprocess.run([ROOT / "dev", "model", name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"./dev model {name} failed: {done.stderr[-600:]}"
        return pathlib.Path(done.stdout.strip())

    return find


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Path of a model of 0.4 million weights and 1,024 tokens: what is tested with it is the server, also where a step is
    slow (sanitizers)."""
    import arch_models  # brings NumPy and gguf, which most tests do without

    return arch_models.write("llama_mha", tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def start_server(logitd):
    """start_server(model, *args) starts one more server; all of them are ended, and must exit 0, after the test."""
    servers = []

    def start(model, *args):
        servers.append(Server(logitd, model, *args))
        return servers[-1]

    yield start
    codes = [server.stop() for server in servers]
    assert codes == [0] * len(codes), f"exit codes after SIGTERM: {codes}"


@pytest.fixture(scope="session")
def server(logitd, model_path):
    """One server on the default model (SmolLM2), shared by all tests of the run; nobody may stop it."""
    with Server(logitd, model_path("smollm2")) as running:
        yield running
