"""The largest replies: every position's whole distribution over loopback, against computing it and against the copy.

    python bench/full_reply.py --build build --model M.gguf [--tokens 512] [--rounds 9] [--threads N]

  computed   `logitd score --top-n full --format safetensors` into /dev/null, less what it takes to start: a run of one
             letter without what that says it computed
  copied     as many bytes from one process to another over loopback, by Python
  served     the same request over HTTP, read by Python as it comes

In turn; wall time, and CPU time of everything that took part. A served reply that is no slower than `computed` and
`copied` together, moments before and after it, costs nothing that it need not. Standard library only; the times of a
machine that does other things too say little, so its load is printed with them.
"""

import argparse
import http.client
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from serving import Server  # noqa: E402  (after the path)

PIECE = bytearray(1 << 20)
TEXT = ROOT / "tests" / "fixtures" / "texts" / "english.txt"


def cpu_s(who=resource.RUSAGE_SELF):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def server_cpu_s(server):
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def text_of(server, n_tokens):
    tokens = server.post("/tokenize", {"text": TEXT.read_text() * 2}).json()["tokens"][:n_tokens]
    return b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="ignore")


def score(command, text, *options):
    """What a run prints; its (wall, CPU) seconds."""
    start, cpu = time.perf_counter(), cpu_s(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, *options], input=text.encode(), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout, (time.perf_counter() - start, cpu_s(resource.RUSAGE_CHILDREN) - cpu)


def computed(command, text, n_threads):
    """(wall, CPU) seconds of a run of the text, less those of starting one."""
    letter = ["--top-n", "0", "--format", "json"]
    score(command, "a", *letter)  # a virtual machine takes long to get back memory: neither of the next two is to pay for it
    reply, start = score(command, "a", *letter)
    compute_s = json.loads(reply)["timing_ms"]["compute"] / 1000
    _, whole = score(command, text, "--top-n", "full", "--format", "safetensors", "--out", os.devnull)
    return tuple(w - (s - k * compute_s) for w, s, k in zip(whole, start, (1, n_threads)))


def read_all(read_into):
    n = 0
    while k := read_into(PIECE):
        n += k
    return n


def copied(n_bytes):
    """Of both sides."""
    start, cpu = time.perf_counter(), cpu_s() + cpu_s(resource.RUSAGE_CHILDREN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            with socket.create_connection(listener.getsockname()) as out:
                for at in range(0, n_bytes, len(PIECE)):
                    out.sendall(PIECE[: n_bytes - at])
            os._exit(0)
        connection, _ = listener.accept()
        with connection:
            assert read_all(connection.recv_into) == n_bytes
        os.waitpid(child, 0)
    return time.perf_counter() - start, cpu_s() + cpu_s(resource.RUSAGE_CHILDREN) - cpu


def served(server, text):
    """Bytes, and seconds of both sides."""
    start, cpu = time.perf_counter(), cpu_s() + server_cpu_s(server)
    connection = http.client.HTTPConnection(server.netloc)
    body = json.dumps({"prompt": text, "top_n": "full", "format": "safetensors"})
    connection.request("POST", "/distribution", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    n = read_all(reply.readinto)
    connection.close()
    return n, (time.perf_counter() - start, cpu_s() + server_cpu_s(server) - cpu)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    options.add_argument("--model", required=True)
    options.add_argument("--tokens", type=int, default=512)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    o = options.parse_args()
    binary, threads = o.build / "logitd", ["--threads", str(o.threads)]
    command = [binary, "score", "--model", o.model, *threads]
    rounds = []
    with Server(binary, o.model, *threads) as server:
        text = text_of(server, o.tokens)
        for _ in range(o.rounds):
            alone = computed(command, text, o.threads)
            n_bytes, reply = served(server, text)
            rounds.append({"computed": alone, "copied": copied(n_bytes), "served": reply})
    best = {name: [min(r[name][i] for r in rounds) for i in range(2)] for name in rounds[0]}
    print(f"{n_bytes / (1 << 20):.0f} MiB, {o.threads} threads, best of {o.rounds}, load {os.getloadavg()[0]:.1f}\n              wall s   CPU s")
    for name, (wall, cpu) in best.items():
        print(f"{name:10} {wall:9.2f} {cpu:7.2f}")
    for i, kind in enumerate(("wall", "CPU")):
        ratios = sorted(r["served"][i] / (r["computed"][i] + r["copied"][i]) for r in rounds)
        print(f"served / (computed + copied), {kind}: median of the rounds {statistics.median(ratios):.2f}, "
              f"from {ratios[0]:.2f} to {ratios[-1]:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
