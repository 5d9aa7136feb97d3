"""The benches' own arithmetic, by values: the document of a quick run on a small model, comparisons, what plots show, and
the many-client bench. No time is asserted.
"""

import json
import pathlib
import subprocess
import sys

import arch_models
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

import cases  # noqa: E402  (after the path)
import clients  # noqa: E402
import compare  # noqa: E402
import series  # noqa: E402

N = 16  # positions of a typical request in these runs
SECTIONS = ["peaks", "matmul", "projection", "profile", "requests", "decode", "threads"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small llama: 3 layers, 288 wide, 1,009 tokens."""
    return arch_models.write("llama_tied", tmp_path_factory.mktemp("bench") / "tiny.gguf")


@pytest.fixture(scope="module")
def bench(logitd):
    return logitd.parent / "logitd-bench"


def run(bench, *args):
    return subprocess.run([bench, *map(str, args)], capture_output=True, text=True, timeout=1200, check=False)


@pytest.fixture(scope="module")
def document(bench, model, tmp_path_factory):
    """A whole quick run, read from its file."""
    path = tmp_path_factory.mktemp("out") / "cases.json"
    done = run(bench, "--model", model, "--tokens", N, "--repeat", 3, "--seconds", 0, "--threads", 2, "--json", path)
    assert (done.returncode, done.stderr) == (0, "")
    for section in SECTIONS:
        assert f"\n{section}: " in done.stdout  # its heading in the table
    return cases.read(path)


def of(document, section):
    return [case for case in document["cases"] if case["section"] == section]


# ----------------------------------------------------------------------------------------------------- the document


def test_document_says_what_was_measured(document):
    assert document["threads"] == 2
    assert document["model"]["name"] == "llama_tied"
    assert (document["model"]["n_vocab"], document["model"]["n_embd"]) == (1009, 288)
    assert [s for i, s in enumerate(c["section"] for c in document["cases"])
            if i == 0 or s != document["cases"][i - 1]["section"]] == SECTIONS  # all, each in one piece


def test_cases_are_distinct_and_agree_with_themselves(document):
    names = [cases.key(case) for case in document["cases"]]
    assert len(set(names)) == len(names)
    for case in document["cases"]:
        assert 0 < case["best_ms"] <= case["median_ms"]
        assert case["spread"] == pytest.approx(case["median_ms"] / case["best_ms"] - 1, abs=1e-12)
        assert case["n_runs"] >= 3
        if "positions" in case:
            assert case["positions_per_s"] == pytest.approx(case["positions"] / case["best_ms"] * 1e3)
        if "share_of_limit" in case and "positions" in case:
            assert case["share_of_limit"] == pytest.approx(case["positions_per_s"] / case["limit_positions_per_s"])
        assert ("bound" in case) == ("share_of_limit" in case)
        if "share_of_limit" in case:
            ms = max(case.get("gops", 0) / case["limit_gops"], case.get("gbps", 0) / case["limit_gbps"])
            assert case["share_of_limit"] == pytest.approx(ms)


def test_projection_counts_its_work_and_sweeps(document):
    rows = of(document, "projection")
    for case in rows:
        ops = 2 * case["positions"] * 288 * case["vocabulary"]
        assert case["gops"] * case["best_ms"] * 1e6 == pytest.approx(ops)
    plain = [c for c in rows if series.plain(c, "projection")]
    assert [c["positions"] for c in plain] == [1, 2, 4, 8, 16]
    assert [c["temperatures"] for c in rows if c["positions"] == N and c.get("temperatures", 1) > 1] == [2, 4, 8, 16, 32]
    assert [c["vocabulary"] for c in rows if "random" in c["name"]] == [126, 252, 504, 1009, 2018, 4036]


def test_profile_counts_every_product_of_the_pass(document):
    v = arch_models.VARIANTS["llama_tied"]
    rows = {c["name"]: c for c in of(document, "profile")}
    ops = 2 * N * v.n_embd * v.n_ff * v.n_layer
    for role in ("ffn_gate", "ffn_up", "ffn_down"):
        case = rows[f"{N} tokens: matmul {role} x {v.n_layer}"]
        assert case["gops"] * case["best_ms"] * 1e6 == pytest.approx(ops)
    attention = rows[f"{N} tokens: attention full x {v.n_layer}"]
    keys = N * (N + 1) / 2
    assert attention["gops"] * attention["best_ms"] * 1e6 == pytest.approx(4 * keys * v.n_head * v.head_dim * v.n_layer)
    whole = rows[f"{N} tokens: the whole pass"]
    counted = sum(c["gops"] * c["best_ms"] for name, c in rows.items()
                  if name.startswith(f"{N} tokens") and c is not whole and "gops" in c)
    assert whole["gops"] * whole["best_ms"] == pytest.approx(counted)


def test_decode_and_requests(document):
    assert [c["positions"] for c in of(document, "decode")] == [1, 2, 4, 8]
    requests = of(document, "requests")
    assert [c["positions"] for c in requests if series.plain(c, "requests")] == [1, 8, 16, 32, 64, 128]
    v = arch_models.VARIANTS["llama_tied"]
    last = next(c for c in requests if "last position" in c["name"])
    every = next(c for c in requests if c["name"] == f"{N} positions")
    assert (every["gops"] * every["best_ms"] - last["gops"] * last["best_ms"]) * 1e6 == pytest.approx(
        2 * (N - 1) * v.n_embd * v.n_vocab)
    assert [c["threads"] for c in of(document, "threads")] == [1, 2]


def test_json_to_stdout_is_all_there_is(bench, model):
    done = run(bench, "--model", model, "--tokens", 4, "--seconds", 0, "--only", "threads,decode", "--json", "-", "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert {c["section"] for c in json.loads(done.stdout)["cases"]} == {"decode", "threads"}


@pytest.mark.parametrize(
    ("args", "status", "sentence"),
    [
        ([], 2, "logitd-bench: --model M.gguf is missing; see logitd-bench --help"),
        (["--model", "m", "x"], 2, "logitd-bench: only options are expected; see logitd-bench --help"),
        (["--model", "m", "--tokens", "0"], 2, 'logitd-bench: --tokens is "0"; it must be a number from 1 to 8192'),
        (["--model", "m", "--tokens", "2.5"], 2, 'logitd-bench: --tokens is "2.5"; it must be an integer'),
        (["--model", "m", "--repeat", "2"], 2, 'logitd-bench: --repeat is "2"; it must be a number from 3 to 101'),
        (["--model", "m", "--seconds", "1s"], 2, 'logitd-bench: --seconds is "1s"; it must be a number from 0 to 3600'),
        (["--model", "m", "--only", "decode,gemm"], 2, 'logitd-bench: --only is "decode,gemm"; it must be some of peaks, '
         "matmul, projection, profile, requests, decode, threads, cuda"),
        (["--model", "m", "--json", "/none/x"], 1, "logitd-bench: /none/x cannot be written: No such file or directory"),
        (["--model", "/none.gguf"], 1, "logitd-bench: /none.gguf: cannot be opened: No such file or directory"),
    ],
)
def test_wrong_options_get_one_sentence(bench, args, status, sentence):
    done = run(bench, *args)
    assert (done.returncode, done.stdout if status == 2 else "", done.stderr) == (status, "", sentence + "\n")


def test_what_is_written_to_is_looked_at_before_the_work(bench, model, tmp_path):
    before = model.read_bytes()
    done = run(bench, "--model", model, "--json", model)
    assert (done.returncode, done.stderr) == (1, f"logitd-bench: --json is {model}, which is the model; name another file\n")
    assert model.read_bytes() == before
    results = tmp_path / "results.json"
    results.write_text("of yesterday")
    assert run(bench, "--model", "/none.gguf", "--json", results).returncode == 1
    assert results.read_text() == "of yesterday"
    command = [sys.executable, ROOT / "bench" / "run.py", "--model", "/none.gguf", "--json", "/none/x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.endswith("argument --json: /none/x cannot be written: No such file or directory\n")


def test_a_table_that_cannot_be_written_is_a_failure(bench, model):
    with open("/dev/full", "w") as full:
        command = [bench, "--model", model, "--only", "threads", "--tokens", "4", "--seconds", "0", "--threads", "1"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=1200, check=False)
    assert (done.returncode, done.stderr) == (1, "logitd-bench: cannot write stdout: No space left on device\n")


# ------------------------------------------------------------------------------------------------------- comparisons


def case(section, name, best_ms, spread=0.0, **members):
    return {"section": section, "name": name, "best_ms": best_ms, "median_ms": best_ms * (1 + spread), "spread": spread,
            "n_runs": 5, **members}


def run_of(date, *rows, threads=2):
    return {"schema": 1, "date": date, "machine": {"cpu": "c"}, "threads": threads,
            "model": {"sha256": "a", "kernel": "k", "precision": "exact"}, "cases": list(rows)}


OLD = run_of("1", case("a", "same", 10.0, 0.05), case("a", "better", 10.0, 0.01), case("b", "worse", 8.0, 0.02),
             case("b", "gone", 1.0), case("peaks", "f32", 4.0))
NEW = run_of("2", case("a", "same", 9.6, 0.01), case("a", "better", 5.0, 0.3), case("b", "worse", 10.0, 0.02),
             case("a", "new", 1.0), case("peaks", "f32", 4.0))


def test_compare_ratios_are_sorted_and_marked_beyond_the_noise():
    assert compare.compare(OLD, NEW) == [
        ("a", "better", 10.0, 5.0, 2.0, 0.3, "faster"),
        ("a", "same", 10.0, 9.6, pytest.approx(10 / 9.6), 0.05, ""),  # 1.042, and the old run spread by 5 %
        ("peaks", "f32", 4.0, 4.0, 1.0, 0.0, ""),
        ("b", "worse", 8.0, 10.0, 0.8, 0.02, "SLOWER"),
    ]


def test_compare_noise_is_the_same_both_ways():
    """Twice as slow within a spread of 100 % is as little news as twice as fast."""
    slow, fast = run_of("1", case("a", "x", 10.0, 1.0)), run_of("2", case("a", "x", 5.01, 0.0))
    assert compare.compare(slow, fast)[0][-1] == compare.compare(fast, slow)[0][-1] == ""


def test_compare_text_counts_and_names_what_differs():
    new = NEW | {"threads": 1}
    text = compare.text(OLD, new)
    assert "not the same threads: 2 before, 1 now" in text
    mean = (2.0 * 10 / 9.6 * 0.8) ** (1 / 3)
    assert f"3 cases: 1 faster, 1 slower, 1 within the noise; geometric mean {mean:.3f}x" in text
    assert text.endswith("only before: b gone\nonly now: a new")
    lines = text.splitlines()
    assert next(i for i, line in enumerate(lines) if "peaks: f32" in line) < next(
        i for i, line in enumerate(lines) if "a: better" in line)


def test_compare_command(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps(OLD))
    (tmp_path / "bad.json").write_text('{"cases": []}')
    command = [sys.executable, ROOT / "bench" / "compare.py", tmp_path / "old.json"]
    same = subprocess.run([*command, tmp_path / "old.json"], capture_output=True, text=True, check=False)
    assert (same.returncode, same.stderr) == (0, "")
    assert "4 cases: 0 faster, 0 slower, 4 within the noise; geometric mean 1.000x" in same.stdout
    for name, sentence in (("bad.json", 'is no result of this bench: it must be an object with "schema": 1 and "cases"'),
                           ("none.json", "cannot be read: ")):
        done = subprocess.run([*command, tmp_path / name], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"compare: {tmp_path / name} {sentence}")


# -------------------------------------------------------------------------------------------------------------- plots


def test_quantiles():
    assert cases.quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.5
    assert cases.quantile([5.0], 0.99) == 5.0
    assert cases.quantile(list(range(101)), 0.99) == 99
    assert cases.quantile([0.0, 10.0], 0.99) == pytest.approx(9.9)


def test_timed_case():
    got = cases.timed("clients", "x", [4.0, 2.0, 3.0], positions=10, clients=5)
    assert got == {"section": "clients", "name": "x", "n_runs": 3, "best_ms": 2.0, "median_ms": 3.0, "spread": 0.5,
                   "positions": 10, "clients": 5, "positions_per_s": 5000.0}


def test_plots_show_every_sweep(document):
    for plot in series.PLOTS:
        assert series.has_data(document, plot) == (plot.name != "clients")
    by_name = {plot.name: plot for plot in series.PLOTS}
    whole, final = series.select(document, by_name["positions"])
    assert (whole.label, whole.xs) == ("whole requests", [1, 8, 16, 32, 64, 128])
    assert (final.label, final.xs) == ("final projection", [1, 2, 4, 8, 16])
    assert len(final.limits) == 5
    for line in series.select(document, by_name["temperatures"]):
        assert line.xs == [1, 2, 4, 8, 16, 32]
    assert series.select(document, by_name["vocabulary"])[0].xs == [126, 252, 504, 1009, 2018, 4036]
    bars = series.profile_bars(document)
    assert {"project_stats x 1", "matmul ffn_down x 3"} <= {name for name, _, _ in bars}
    assert sum(share for _, share, _ in bars) <= 1.0


def test_clients_are_drawn_beside_one_large_request_and_the_limit():
    rows = [case("clients", "one request of 4 prompts", 10.0, positions=50, positions_per_s=5000.0),
            case("clients", "8 clients, mixed lengths", 2.0, clients=8, positions=8, positions_per_s=4000.0),
            case("clients", "1 client, mixed lengths", 2.0, clients=1, positions=6, positions_per_s=3000.0),
            case("requests", "8 positions, 2 temperatures", 1.0, temperatures=2, limit_positions_per_s=9000.0)]
    plot = next(plot for plot in series.PLOTS if plot.name == "clients")
    lines = series.select(run_of("1", *rows), plot)
    assert [(line.label, line.xs, line.ys) for line in lines] == [
        ("mixed lengths", [1, 8], [3000.0, 4000.0]),
        ("one request of 4 prompts", [1, 8], [5000.0, 5000.0]),
        ("limit of one request", [1, 8], [9000.0, 9000.0])]


# ----------------------------------------------------------------------------------------------------------- clients


def test_clients_bench(start_server, model):
    said = []
    got = clients.measure(start_server(model, "--threads", 1), said.append, (1, 3), rounds=2, min_requests=8)
    assert [c["name"] for c in got] == ["one request of 64 prompts", "1 client, mixed lengths", "3 clients, mixed lengths",
                                       "4 clients of 16 tokens alone", "4 clients of 16 tokens beside 4 of 256"]
    assert [c.get("positions") for c in got] == [8 * sum(clients.LENGTHS), sum(clients.LENGTHS), 16 + sum(clients.LENGTHS),
                                                None, None]
    assert [c["n_runs"] for c in got] == [2, 2, 2, 40, 40]
    assert len(said) == 5
    for c in got[1:]:
        assert 0 < c["p50_ms"] <= c["p99_ms"]
    assert got[2]["share_of_large_request"] == pytest.approx(got[2]["positions_per_s"] / got[0]["positions_per_s"])


def test_a_request_that_fails_ends_the_bench(start_server, model):
    server = start_server(model)
    with pytest.raises(RuntimeError, match="400: .*1009"):
        clients.work_through(server.netloc, [[1, 2], [1009]], 1)


def test_whole_bench_in_one_command(logitd, model, tmp_path):
    """As ./dev bench runs it: both halves in one document, and compared with an earlier run."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    command = [sys.executable, ROOT / "bench" / "run.py", "--build", logitd.parent, "--model", model, "--tokens", "4"]
    command += ["--seconds", "0", "--threads", "1"]
    done = subprocess.run([*command, "--only", "decode,clients", "--clients", "2", "--json", first], capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {c["section"] for c in cases.read(first)["cases"]} == {"decode", "clients"}
    done = subprocess.run([*command, "--only", "decode", "--json", second, "--compare", first], capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n4 cases: " in done.stdout
    assert "only before: clients one request of 64 prompts, clients 2 clients, mixed lengths, " in done.stdout
    done = subprocess.run([*command, "--only", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no section speed; choose from peaks, matmul," in done.stderr


def test_peers_statistics():
    """What peers' logits become, against the float64 definitions."""
    torch = pytest.importorskip("torch", reason="torch is not installed", exc_type=ImportError)
    peer_models = pytest.importorskip("peer_models", reason="the peers are not installed", exc_type=ImportError)
    import numpy as np
    import stats

    logits = np.random.RandomState(1).standard_normal((5, 300)) * 6
    targets = np.array([3, 0, 299, 7])
    got = peer_models.statistics(torch.tensor(logits, dtype=torch.float32), torch.tensor(targets))
    logsumexp, entropy, varentropy = stats.statistics(logits, 1.0)
    assert np.abs(got["logsumexp"].numpy() - logsumexp).max() < 1e-5
    assert np.abs(got["entropy"].numpy() - entropy).max() < 1e-5
    assert np.abs(got["varentropy"].numpy() - varentropy).max() < 1e-4
    assert np.abs(got["next_logprob"].numpy() - stats.logprobs(logits, 1.0)[np.arange(4), targets]).max() < 2e-5
    assert got["rank"].tolist() == stats.ranks(logits[:4], targets)[0].tolist()
    assert got["top_ids"].tolist() == stats.top_ids(logits, 20).tolist()
