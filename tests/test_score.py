"""`logitd score`: the server's numbers without the server, its table, and a sentence for every wrong command line."""

import json
import subprocess

import pytest

TEXT = "The quick brown fox\n\tjumps — over 猫.\n"


@pytest.fixture(scope="module")
def score(logitd, model_path):
    def run(*args, text=TEXT, model=True):
        command = [logitd, "score", *(["--model", model_path("smollm2")] if model else []), *args]
        data = text if isinstance(text, bytes) else text.encode()
        return subprocess.run(command, input=data, capture_output=True, timeout=1200, check=False)

    return run


def test_json_is_the_servers(score, server, tmp_path):
    file, out = tmp_path / "text", tmp_path / "out.json"
    file.write_text(TEXT, encoding="utf-8")
    done = score("--file", file, "--out", out, "--format", "json", "--temperatures", "0.5,1", "--top-n", "7", text="")
    assert (done.returncode, done.stdout) == (0, b"")
    got = json.loads(out.read_bytes())
    wanted = server.distribution(prompt=TEXT, temperatures=[0.5, 1], top_n=7)
    for key in ("id", "created", "timing_ms"):
        del got[key], wanted[key]
    assert got == wanted


def test_ndjson_full(score, server):
    lines = [json.loads(line) for line in score("--format", "ndjson", "--top-n", "full", text="A b").stdout.splitlines()]
    wanted = server.distribution(prompt="A b", top_n="full")["results"][0]
    assert [{k: v for k, v in line.items() if k != "index"} for line in lines[2:-2]] == wanted["positions"]


@pytest.mark.parametrize("top_n", ["full", 7])
def test_safetensors_is_the_servers(score, server, top_n):
    done = score("--format", "safetensors", "--top-n", str(top_n), "--temperatures", "0.5,1")
    body = {"prompt": TEXT, "temperatures": [0.5, 1], "top_n": top_n, "format": "safetensors"}
    assert done.returncode == 0 and done.stdout == server.post("/distribution", body).body


def test_table(score, server):
    lines = score("--temperatures", "0.5,1").stdout.decode().splitlines()
    result = server.distribution(prompt=TEXT, temperatures=[0.5, 1], top_n=1)["results"][0]
    tokens, rows = result["tokens"], result["positions"]
    assert lines[0].split()[:3] == ["pos", "token", "rank"]
    assert len(lines) >= len(tokens) + 5
    for i, row in enumerate(rows[:-1]):  # the line of a token holds what was believed before it
        shown = row["next"]["text"].replace(" ", "␣").replace("\n", "⏎").replace("\t", "→")
        cells = lines[i + 2].split()
        assert cells[:2] == [str(i + 1), shown]
        assert int(cells[2]) == row["next"]["rank"]
        for t in range(2):
            assert float(cells[3 + 3 * t]) == pytest.approx(-row["next"]["logprob"][t], abs=1e-4)
            assert float(cells[4 + 3 * t]) == pytest.approx(row["entropy"][t], abs=1e-4)
    assert "(what comes next)" in lines[len(tokens) + 1]
    summaries = [line.split() for line in lines[-3:-1]]
    for cells, summary in zip(summaries, result["summary"]):
        assert float(cells[0]) == summary["temperature"] and int(cells[4]) == summary["n"]
        assert float(cells[1]) == pytest.approx(summary["cross_entropy"], abs=1e-5)


@pytest.mark.parametrize("args, text, words", [
    (["--ctx", "4"], TEXT, ["takes at most 4", " tokens"]),
    ([], b"a\xffb", ["UTF-8", "byte 1"]),
    ([], "", ["no tokens"]),
    (["--file", "/nonexistent"], "", ["/nonexistent", "No such file"]),
    (["--out", "/nonexistent/x"], TEXT, ["/nonexistent/x", "No such file"]),
    (["--out", "/dev/full"], TEXT, ["/dev/full", "No space"]),
])  # fmt: skip
def test_failures_are_sentences(score, args, text, words):
    done = score(*args, text=text)
    assert done.returncode == 1
    message = done.stderr.decode().splitlines()[-1]
    assert message.startswith("logitd score: ") and all(word in message for word in words), message


@pytest.mark.parametrize("args, text", [(["--model", "/nonexistent"], TEXT), ([], b"a\xffb"), (["--ctx", "1"], TEXT)])
def test_a_failure_leaves_the_file_as_it_was(score, tmp_path, args, text):
    out = tmp_path / "results.json"
    out.write_text("of yesterday")
    assert score("--out", out, *args, text=text).returncode == 1
    assert out.read_text() == "of yesterday"


def test_a_shorter_reply_replaces_all_of_a_file(score, tmp_path):
    out = tmp_path / "results.json"
    out.write_text("of yesterday" * 1000)
    assert score("--out", out, "--format", "json", "--top-n", "0", text="a").returncode == 0
    assert json.loads(out.read_bytes())["results"][0]["tokens"][0]["text"] == "a"


def test_what_is_read_is_not_written(score, logitd, model_path, tmp_path):
    """--out emptied the text, or the model, before it was read."""
    text, link = tmp_path / "text", tmp_path / "link"
    text.write_text(TEXT, encoding="utf-8")
    link.symlink_to(text)
    for args in (["--file", text, "--out", text], ["--file", link, "--out", text], ["--model", text, "--out", link]):
        done = score(*args)
        assert done.returncode == 1
        assert done.stderr.decode() == f"logitd score: --out is {args[3]}, which holds the text or the model; name another file\n"
    with text.open() as stdin:
        command = [logitd, "score", "--model", model_path("smollm2"), "--out", text]
        assert subprocess.run(command, stdin=stdin, capture_output=True, check=False).returncode == 1
    assert text.read_text(encoding="utf-8") == TEXT


def test_without_stderr_the_log_goes_nowhere(logitd, model_path, tmp_path):
    """The file of --out was opened under the number of stderr, and the log's lines went into it."""
    text, out = tmp_path / "text", tmp_path / "out"
    text.write_text("a")
    command = 'exec "$0" score --model "$1" --file "$2" --out "$3" --format json --log-level debug 2>&-'
    subprocess.run(["sh", "-c", command, logitd, model_path("smollm2"), text, out], check=True)
    assert json.loads(out.read_bytes())["usage"]["prompt_tokens"] == 1


@pytest.mark.parametrize("args, words", [
    (["--bogus"], ["--bogus", "no option"]),
    (["--top-n"], ["--top-n", "needs a value"]),
    (["--top-n", "1025"], ["1024"]),
    (["--top-n", "full"], ["--format"]),
    (["--temperatures", "1,,2"], ["0.001"]),
    (["--temperatures", ",".join(["1"] * 33)], ["32"]),
    (["--temperatures", "nan"], ["0.001"]),
    (["--format", "xml"], ["table, json, ndjson or safetensors"]),
    (["--log-level", "loud"], ["debug"]),
    (["word"], ["word", "not expected"]),
])  # fmt: skip
def test_wrong_command_lines(score, args, words):
    done = score(*args)
    assert done.returncode == 2
    message = done.stderr.decode()
    assert message.count("\n") == 1 and all(word in message for word in words), message


def test_the_model_is_required(score):
    done = score(model=False)
    assert done.returncode == 2 and b"--model" in done.stderr


def test_main(logitd):
    def run(*args):
        return subprocess.run([logitd, *args], capture_output=True, text=True, check=False)

    assert run("--version").stdout.startswith("logitd ")
    assert run("--help").returncode == 0 and "serve" in run("--help").stdout
    assert run().returncode == 2 and run("frob").returncode == 2
    assert '"frob"' in run("frob").stderr
    for command in ("serve", "score", "info"):
        assert run(command, "--help").returncode == 0
        assert run(command).returncode == 2
    for args in (["--version"], ["--help"], ["serve", "--help"], ["score", "--help"], ["info", "--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([logitd, *args], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "logitd: cannot write stdout: No space left on device\n")
