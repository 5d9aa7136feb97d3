"""Many clients at once over HTTP: how much the server computes for them together, and how long short requests wait.

    python bench/clients.py --build build --model M.gguf [--clients 1,8,32,128] [--rounds 3] [--threads N]

Two loads, both closed loops (a client sends its next request when it has its reply) over kept connections:

  mixed          the same list of prompts of mixed lengths is worked through by N clients; before it, the same kind of
                 prompts as one large request: what batching at its best gives
  beside long    clients of short prompts, alone and then beside clients of long ones: how long do the short ones take

All positions, statistics and top 20, JSON replies read whole and not parsed. Clients and server share the machine.
Standard library only. A reply that is no 200 ends the bench with its text: a load that fails is no measurement.
"""

import argparse
import http.client
import json
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

from cases import quantile, timed  # noqa: E402  (after the path)
from serving import REQUEST_S, Server  # noqa: E402

LENGTHS = (16, 32, 64, 16, 128, 32, 256, 16)  # of the mixed prompts, in turn: 70 tokens on average
SHORT, LONG = 16, 2048
LARGE_PROMPTS = 64  # of the one large request


def token(n_vocab, position):
    """The same ids as session_token of session.c."""
    return (position * 7919 + 1000) % n_vocab


def prompt(n_vocab, length, seed):
    return [token(n_vocab, seed * 131 + i) for i in range(length)]


def mixed_prompts(n_vocab, n):
    """n prompts of mixed lengths, all different."""
    return [prompt(n_vocab, LENGTHS[i % len(LENGTHS)], i) for i in range(n)]


class Client:
    """One kept connection."""

    def __init__(self, netloc):
        self.connection = http.client.HTTPConnection(netloc, timeout=REQUEST_S)
        self.connection.connect()

    def ask(self, prompts):
        """Sends a prompt, or several in one request; ms until the reply was read."""
        body = json.dumps({"prompt": prompts})
        start = time.perf_counter()
        self.connection.request("POST", "/distribution", body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        reply = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {reply[:300].decode(errors='replace')}")
        return (time.perf_counter() - start) * 1e3

    def close(self):
        self.connection.close()


def run_together(work):
    """Calls each function in a thread of its own, all started at once. Raises what one of them raised."""
    errors, gate = [], threading.Barrier(len(work))

    def guarded(function):
        try:
            gate.wait()
            function()
        except Exception as error:  # noqa: BLE001  (shown below)
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def work_through(netloc, prompts, n_clients):
    """n_clients take prompts from one list until it is empty. Wall ms, and (tokens, ms) of each request."""
    todo, done, lock = list(reversed(prompts)), [], threading.Lock()
    clients = [Client(netloc) for _ in range(n_clients)]

    def loop(client):
        while True:
            with lock:
                if not todo:
                    return
                ids = todo.pop()
            done.append((len(ids), client.ask(ids)))

    start = time.perf_counter()
    run_together([lambda client=client: loop(client) for client in clients])
    wall = (time.perf_counter() - start) * 1e3
    for client in clients:
        client.close()
    return wall, done


def short_beside_long(netloc, n_vocab, n_short, n_long, n_requests, long_tokens):
    """Latencies in ms of n_requests by each of n_short clients, while n_long clients keep long prompts coming."""
    done, ended = [], []
    clients = [Client(netloc) for _ in range(n_short + n_long)]

    def short(client, seed):
        try:
            for i in range(n_requests):
                done.append(client.ask(prompt(n_vocab, SHORT, seed * n_requests + i)))
        finally:
            ended.append(seed)

    def long(client, seed):
        while len(ended) < n_short:
            client.ask(prompt(n_vocab, long_tokens, 10**6 + seed))

    run_together([lambda c=c, i=i: short(c, i) for i, c in enumerate(clients[:n_short])]
                 + [lambda c=c, i=i: long(c, i) for i, c in enumerate(clients[n_short:])])
    for client in clients:
        client.close()
    return done


def measure(server, show, client_counts=(1, 8, 32, 128), rounds=3, requests_per_client=3, min_requests=64):
    """All cases of this bench on a running server; `show` prints a line."""
    model = server.get("/model").json()
    n_vocab, work = model["n_vocab"], {"temperatures": 1, "top_n": 20}
    cases = []

    large = mixed_prompts(n_vocab, LARGE_PROMPTS)
    positions = sum(map(len, large))
    client = Client(server.netloc)
    client.ask(large)
    cases.append(timed("clients", f"one request of {LARGE_PROMPTS} prompts", [client.ask(large) for _ in range(rounds)],
                       positions=positions, **work))
    client.close()
    best = cases[0]["positions_per_s"]
    show(f"{cases[0]['name']:40} {best:9.0f} positions/s")

    for n_clients in client_counts:
        prompts = mixed_prompts(n_vocab, max(min_requests, requests_per_client * n_clients))
        runs = [work_through(server.netloc, prompts, n_clients) for _ in range(rounds)]
        short = [ms for _, done in runs for length, ms in done if length == SHORT]
        case = timed("clients", f"{n_clients} client{'s' if n_clients > 1 else ''}, mixed lengths",
                     [wall for wall, _ in runs], positions=sum(map(len, prompts)), clients=n_clients,
                     p50_ms=quantile(short, 0.5), p99_ms=quantile(short, 0.99), **work)
        case["share_of_large_request"] = case["positions_per_s"] / best
        cases.append(case)
        show(f"{case['name']:40} {case['positions_per_s']:9.0f} positions/s  {100 * case['share_of_large_request']:5.0f}% of the "
             f"large request; {SHORT} tokens: p50 {case['p50_ms']:8.1f} ms, p99 {case['p99_ms']:8.1f} ms")

    long_tokens = min(LONG, model["n_ctx"])
    for n_long in (0, 4):
        latencies = short_beside_long(server.netloc, n_vocab, 4, n_long, 10, long_tokens)
        name = f"4 clients of {SHORT} tokens " + (f"beside {n_long} of {long_tokens}" if n_long else "alone")
        case = timed("clients", name, latencies, clients=4 + n_long, p50_ms=quantile(latencies, 0.5),
                     p99_ms=quantile(latencies, 0.99))
        cases.append(case)
        show(f"{name:40} p50 {case['p50_ms']:8.1f} ms, p99 {case['p99_ms']:8.1f} ms")
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default="build")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--clients", default="1,8,32,128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    with Server(args.build / "logitd", args.model.resolve(), "--threads", args.threads) as server:
        measure(server, print, [int(n) for n in args.clients.split(",")], args.rounds)


if __name__ == "__main__":
    main()
