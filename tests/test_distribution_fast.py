"""`--precision fast`: both real models keep its promise against float64 and say so, and a CPU level that lacks it is
refused in a sentence. Expected values: the fixtures of test_distribution_exact.py.
"""

import pathlib
import subprocess

import numpy as np
import pytest
import stats
from serving import Server

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
BOUND = 5e-2  # nats at T = 1, as README.md says
NEEDS = {"avx2", "fma"}


def processor_flags():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


@pytest.mark.skipif(not processor_flags() >= NEEDS, reason="this processor has no integer products")
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_fast_keeps_its_promise(name, logitd, model_path):
    worst = stats.Worst("logprob at T = 1")
    with Server(logitd, model_path(name), "--precision", "fast") as server:
        for text in ("english", "code", "multilingual"):
            want = np.load(FIXTURES / f"distribution_{name}_{text}.npz")
            reply = server.distribution(prompt=want["ids"].tolist(), top_n=0)
            assert reply["numerics"]["precision"] == "fast" and reply["numerics"]["logprob_bound"] == BOUND
            at_one = want["temperatures"].tolist().index(1.0)
            got = [row["next"]["logprob"][0] for row in reply["results"][0]["positions"][:-1]]
            worst.add(got, want["next_logprob"][:, at_one], BOUND, lambda i, text=text: f"{text}, position {i}")
    print(worst)
    assert worst.ok(), worst
    assert worst.ratio > 1e-3, "nearer than `exact` can be: is this the fast product?"


def test_a_level_without_fast_is_refused(logitd, model_path):
    command = [logitd, "score", "--model", model_path("smollm2"), "--precision", "fast", "--cpu", "portable"]
    done = subprocess.run(command, input=b"x", capture_output=True, check=False)
    assert done.returncode != 0
    assert b'the CPU level "portable" has no precision "fast"; it offers exact' in done.stderr
