"""`logitd info`: what it says of the real models, of models that logitd does not run, and of files that are not right."""

import struct
import subprocess

import pytest

FACTS = {
    "smollm2": {
        "name": "Smollm2 135M 8k Lc100K Mix1 Ep2",
        "licence": "apache-2.0",
        "format": "GGUF version 3, 98,362,432 bytes",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "architecture": "llama",
        "layers": "30",
        "embedding": "576",
        "feed-forward": "1536",
        "attention heads": "9",
        "key-value heads": "3",
        "context": "8192 tokens",
        "RoPE base": "100000",
        "parameters": "134,515,008",
        "tokenizer": "gpt2 (smollm)",
        "vocabulary": "49,152 tokens",
        "special tokens": "BOS 1, EOS 2, unknown 0, padding 2",
        "BOS by default": "false",
        "chat template": "368 bytes, beginning",
        "    F32": "61           140,544",
        "    Q4_1": "210        66,355,200",
        "    Q8_0": "1        30,081,024",
        "    all": "272        96,576,768",
    },
    "gemma3": {
        "architecture": "gemma3",
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "head size": "256",
        "sliding window": "512 tokens",
        "RoPE base": "1000000",
        "parameters": "268,098,176",
        "tokenizer": "llama (default)",
        "vocabulary": "262,144 tokens",
        "chat template": "none",
        "    Q6_K": "9         9,676,800",
    },
}


def info(logitd, *args):
    return subprocess.run([logitd, "info", *args], capture_output=True, text=True, check=False)


def table(text):
    """{label: value}: a label fills the first 18 columns."""
    return {line[:18].rstrip(): line[18:].strip() for line in text.splitlines()}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_file(path, metadata=(), version=3, magic=b"GGUF"):
    """A file of string entries and no tensors."""
    entries = b"".join(string(key) + struct.pack("<I", 8) + string(value) for key, value in metadata)
    path.write_bytes(magic + struct.pack("<IQQ", version, 0, len(metadata)) + entries)
    return path


@pytest.mark.parametrize("model", FACTS)
def test_real_models(logitd, model_path, model):
    done = info(logitd, model_path(model))
    assert (done.returncode, done.stderr) == (0, "")
    rows = table(done.stdout)
    assert {label: rows.get(label) for label in FACTS[model]} == FACTS[model]
    assert rows["file"] == str(model_path(model))


def test_chat_template_shows_its_first_lines(logitd, tmp_path):
    lines = ["{% first %}", "é" * 120, "\x1b[2Jthird"] + [f"line {i}" for i in range(4, 10)]
    template = "\n".join(lines).encode() + b"\xff"
    path = gguf_file(tmp_path / "m.gguf", [("tokenizer.chat_template", template)])
    out = info(logitd, path).stdout
    assert out[out.index("chat template") : out.index("tensors")] == (
        f"chat template     {len(template)} bytes, beginning\n"
        "    {% first %}\n    " + "é" * 100 + " ...\n     [2Jthird\n    line 4\n    line 5\n    line 6\n    ...\n\n"
    )


def test_architecture_that_logitd_does_not_run(logitd, tmp_path):
    path = gguf_file(tmp_path / "m.gguf", [("general.architecture", "mamba9"), ("mamba9.context_length", "7")])
    done = info(logitd, path)
    rows = table(done.stdout)
    assert done.returncode == 0
    assert (rows["architecture"], rows["context"], rows["tokenizer"]) == ("mamba9", "7 tokens", "none")
    assert (rows["parameters"], rows["    all"], rows["special tokens"]) == ("0", "0                 0", "none")


def test_file_without_any_metadata(logitd, tmp_path):
    done = info(logitd, gguf_file(tmp_path / "m.gguf", version=2))
    assert done.returncode == 0
    assert table(done.stdout)["architecture"] == "not named (no general.architecture)"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"magic": b"GGML"}, 'not a GGUF file: it begins with the bytes 47 47 4d 4c, not with "GGUF"'),
        ({"version": 1}, "GGUF version 1 is not supported; versions 2 and 3 are"),
        ({"version": 0x03000000}, "a big-endian GGUF file; only little-endian ones are supported"),
        ({"metadata": [("a", "x"), ("a", "y")]}, "metadata key 'a' occurs twice"),
    ],
)
def test_file_that_is_not_right(logitd, tmp_path, options, sentence):
    path = gguf_file(tmp_path / "m.gguf", **options)
    done = info(logitd, path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"logitd info: {path}: {sentence}\n")


def test_real_model_cut_short(logitd, model_path, tmp_path):
    path = tmp_path / "cut.gguf"
    with model_path("smollm2").open("rb") as model:
        path.write_bytes(model.read(50_000_000))
    done = info(logitd, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"logitd info: {path}: truncated or damaged: tensor 'blk.")
    assert done.stderr.count("\n") == 1


def test_no_file(logitd, tmp_path):
    done = info(logitd, tmp_path / "none.gguf")
    assert (done.returncode, done.stderr) == (
        1,
        f"logitd info: {tmp_path}/none.gguf: cannot be opened: No such file or directory\n",
    )


def test_output_that_cannot_be_written(logitd, model_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([logitd, "info", model_path("smollm2")], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        b"logitd info: the output cannot be written: No space left on device\n",
    )


def test_command_line(logitd):
    usage = "usage: logitd info MODEL.gguf\n"
    for args in [(), ("a", "b"), ("--colour",)]:
        done = info(logitd, *args)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"logitd info: one model file is needed; {usage}")
    done = info(logitd, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, usage, "")
