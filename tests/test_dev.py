"""./dev where it needs neither network nor root, and the include directions on trees made to break them.

Each run of ./dev here has an empty home and a PATH of the test's own making, so nothing is installed or fetched.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import check_includes
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMOLLM2 = ("SmolLM2-135M-Instruct.Q4_1.gguf", 98362432)


def dev(*args, env, dev=ROOT / "dev"):
    return subprocess.run([dev, *args], capture_output=True, text=True, env=env, timeout=300, check=False)


@pytest.fixture
def bin_folder(tmp_path):
    """A PATH folder with what a minimal Debian has for ./dev, and no compiler, no apt-get, no sudo, no python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in "bash env awk cat cmp df dirname flock grep id mkdir mv nproc rm sha256sum sleep stat tail touch".split():
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.fixture
def env(tmp_path, bin_folder):
    return {"PATH": str(bin_folder), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def checkout(tmp_path):
    """A copy of ./dev in a folder of its own, so that its build/ and logs are not the repository's."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    return shutil.copy(ROOT / "dev", folder / "dev")


def script(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def one_sentence(done):
    """The last line of stderr of a run that failed; it must be ./dev's own and the only explanation."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("logitd: ")
    return done.stderr.splitlines()[-1].removeprefix("logitd: ")


@pytest.mark.parametrize("args", [[], ["help"], ["--help"], ["-h"]])
def test_help_names_every_command(env, args):
    done = dev(*args, env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    commands = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line[2] != " "]
    assert commands == ["serve", "test", "fuzz", "build", "model", "notebooks", "bench", "help"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["sevre"], 'there is no command "sevre"; ./dev help lists them'),
        (["model"], "usage: ./dev model NAME, where NAME is smollm2 or gemma3"),
        (["model", "gpt5"], 'there is no model "gpt5"; choose one of: smollm2, gemma3'),
        (["model", "smollm"], 'there is no model "smollm"; choose one of: smollm2, gemma3'),
        (["model", "smollm2", "gemma3"], "usage: ./dev model NAME, where NAME is smollm2 or gemma3"),
        (["build", "all"], "./dev build takes only --cuda, but got: all"),
        (["test", "--lonng"], "./dev test takes only --long, but got: --lonng"),
    ],
)
def test_wrong_words_get_one_sentence(env, args, sentence):
    done = dev(*args, env=env)
    assert one_sentence(done) == sentence
    assert len(done.stderr.splitlines()) == 1


def test_model_prints_the_path_of_a_cached_file_and_nothing_else(env):
    name, size = SMOLLM2
    path = pathlib.Path(env["XDG_CACHE_HOME"]) / "logitd" / name
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(size)
    done = dev("model", "smollm2", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")


def test_a_half_model_is_not_taken_for_a_whole_one(env, checkout):
    name, size = SMOLLM2
    path = pathlib.Path(env["XDG_CACHE_HOME"]) / "logitd" / name
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(size - 1)
    assert "python3" in one_sentence(dev("model", "smollm2", env=env, dev=checkout))


def test_no_apt_get_names_the_packages(env, checkout):
    sentence = one_sentence(dev("build", env=env, dev=checkout))
    assert sentence.startswith("build tools are missing, and ./dev installs only with apt-get (Debian, Ubuntu); ")
    assert sentence.endswith(
        "gcc g++ cmake ninja-build pkg-config libmicrohttpd-dev libcjson-dev libpcre2-dev nettle-dev zlib1g-dev libzstd-dev curl"
    )


def test_no_network_is_one_sentence(env, checkout, bin_folder):
    """An apt-get that says what the real one says without a network; as_root is this user through a stand-in sudo."""
    script(bin_folder / "sudo", 'shift; exec "$@"')
    script(bin_folder / "dpkg", "exit 0")
    script(
        bin_folder / "apt-get",
        'echo "E: Failed to fetch http://mirror.example/x  Temporary failure resolving \'mirror.example\'"\n'
        'for word; do [ "$word" != install ] || exit 100; done',
    )
    script(bin_folder / "cp", "exit 0")  # keeps certificates on this machine as they are
    sentence = one_sentence(dev("build", env=env, dev=checkout))
    assert sentence.startswith("installing build tools failed: no network, the server cannot be reached (log: ")
    assert "apt.log" in sentence


def test_ctrl_c_is_told_on_stderr_and_not_in_the_log(env, checkout, bin_folder):
    script(bin_folder / "sudo", 'shift; exec "$@"')
    script(bin_folder / "dpkg", "exit 0")
    script(bin_folder / "cp", "exit 0")
    script(bin_folder / "apt-get", "touch started; exec sleep 600")
    folder = pathlib.Path(checkout).parent
    process = subprocess.Popen(
        [checkout, "build"], env=env, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    while not (folder / "started").exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.communicate(timeout=300)[1].splitlines()[-1] == "logitd: stopped; run it again to go on"
    assert process.returncode == 130


def test_a_full_disk_is_one_sentence(env, checkout, bin_folder):
    script(bin_folder / "apt-get", "exit 0")
    script(bin_folder / "sudo", 'shift; exec "$@"')
    (bin_folder / "df").unlink()
    script(bin_folder / "df", 'echo head; echo "/dev/x 100 93 7 93% /"')
    sentence = one_sentence(dev("build", env=env, dev=checkout))
    assert sentence == "the disk is too full: installing build tools needs 700 MB at /usr, and 7 MB are free"


def test_a_cache_folder_that_cannot_be_written_is_named(env, checkout, tmp_path):
    (tmp_path / "file").write_text("")
    env["XDG_CACHE_HOME"] = str(tmp_path / "file")
    assert one_sentence(dev("model", "gemma3", env=env, dev=checkout)).startswith(
        f"cannot write to {tmp_path}/file/logitd: "
    )


def serving_checkout(checkout, bin_folder, body):
    """A checkout whose tools all "exist" and whose built server is `body`."""
    for name in "cc c++ cmake pkg-config curl".split():
        script(bin_folder / name, "exit 0")
    script(bin_folder / "ninja", 'echo "ninja: no work to do."')
    build = pathlib.Path(checkout).parent / "build"
    build.mkdir()
    (build / "build.ninja").write_text("")
    script(build / "logitd", body)


def test_serve_prints_the_page_and_a_curl_line_once_the_server_listens(env, checkout, bin_folder):
    serving_checkout(checkout, bin_folder, 'echo "got $*"; echo "listening on http://127.0.0.1:4711"; echo "bye"; exit 7')
    done = dev("serve", "--model", "m.gguf", "--port", "0", env=env, dev=checkout)
    assert done.returncode == 7
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[0] == "got serve --model m.gguf --port 0"
    assert lines[1] == "listening on http://127.0.0.1:4711"
    assert lines[2] == "  page:  http://127.0.0.1:4711/"
    assert lines[3].startswith("  try:   curl -s http://127.0.0.1:4711/distribution -H ")
    assert lines[4] == "bye"


@pytest.mark.parametrize(("node", "going_on"), [(None, True), ("exit 1", True), ("exit 0", False)])
def test_serve_goes_on_without_a_node_that_is_new_enough(env, checkout, bin_folder, node, going_on):
    serving_checkout(checkout, bin_folder, "exit 7")
    if node:
        script(bin_folder / "node", node)  # which asks its version
        script(bin_folder / "npm", "exit 0")
    done = dev("serve", "--model", "m.gguf", env=env, dev=checkout)
    assert done.returncode == 7
    assert ("going on without the pages at / and /docs" in done.stderr) == going_on


def test_serve_is_the_server_so_that_signals_reach_it(env, checkout, bin_folder):
    serving_checkout(
        checkout, bin_folder, 'trap "echo drained; exit 3" TERM; echo "listening on http://h:1"; while :; do sleep 0.05; done'
    )
    process = subprocess.Popen([checkout, "serve", "--model=m.gguf"], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "listening on http://h:1\n"
    process.terminate()
    rest = process.stdout.read()
    assert process.wait(300) == 3
    assert rest.endswith("drained\n")


def make_tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return list(check_includes.violations(root))


def test_includes_allowed_directions(tmp_path):
    files = {
        "src/util.h": "#include <stdio.h>\n",
        "src/sched.h": '#include "util.h"\n#include <sched.h>\n',
        "src/cpu/cpu_pool.c": "#include <sched.h> // the system's, not src/sched.h\n",
        "src/http_server.c": '#include "sched.h"\n#include <microhttpd.h>\n',
    }
    assert make_tree(tmp_path, files) == []


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("src/util.c", '#include "model.h"\n', 'src/util.c (base) includes "model.h" (model)'),
        ("src/cpu/cpu_x.c", ' # include "../model.h"\n', 'src/cpu/cpu_x.c (cpu) includes "../model.h" (model)'),
        ("src/cpu/cpu_x.c", '#include "cuda/cuda_x.h"\n', '(cpu) includes "cuda/cuda_x.h" (cuda)'),
        ("src/cuda/cuda_x.c", '#include "cpu/cpu_x.h"\n', '(cuda) includes "cpu/cpu_x.h" (cpu)'),
        ("src/routes.c", '#include "model.h"\n', 'src/routes.c (server) includes "model.h" (model)'),
        ("src/routes.c", "#include <microhttpd.h>\n", "which only src/http_server.c may"),
        ("src/model_load.c", "#include <sys/mman.h>\n", "which only src/gguf.c and src/util.c may"),
        ("src/stray.c", "", "src/stray.c belongs to no layer"),
    ],
)
def test_includes_against_the_direction_are_named(tmp_path, name, text, sentence):
    files = {"src/model.h": "", "src/cpu/cpu_x.h": "", "src/cuda/cuda_x.h": "", name: text}
    found = make_tree(tmp_path, files)
    assert len(found) == 1
    assert sentence in found[0]
