"""Compares whole distributions of a running server with float64: every position, every token of the vocabulary.

    check_server.py --url http://127.0.0.1:8080 --model M.gguf --text FILE [--positions 0:600:7] [--temperatures 0.5,1]

M.gguf is the file that the server runs. Prints the worst error of each kind of number with its place, and exits 1 when
one is beyond the bounds of "Numbers it must keep" (stats.py). The reply is read line by line and the oracle's logits
are made a few positions at a time, so memory does not grow with the text. One temperature of a 262,144-token
vocabulary is about 3 MB of JSON a position.
"""

import argparse
import http.client
import json
import pathlib
import sys
import urllib.parse

import numpy as np
import stats
from oracle import Oracle


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--url", required=True, help="of the running server")
    p.add_argument("--model", required=True, help="the GGUF file that it runs")
    p.add_argument("--text", required=True, type=pathlib.Path, help="a UTF-8 file, or .npz fixture with `ids`")
    p.add_argument("--positions", default=":", help="a Python slice start:stop:step (default all)")
    p.add_argument("--temperatures", default="1", help="comma-separated (default 1)")
    return p.parse_args()


def post(url, path, body):
    """The open response of a request that must succeed."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=900)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"{path}: {response.status} {response.read(2000).decode(errors='replace')}")
    return response


def text_ids(args):
    if args.text.suffix == ".npz":
        return np.load(args.text)["ids"].tolist()
    reply = json.loads(post(args.url, "/tokenize", {"text": args.text.read_text(encoding="utf-8")}).read())
    return [token["id"] for token in reply["tokens"]]


class Rows:
    """The oracle's logits by position, made a few positions at a time, in the order asked for."""

    def __init__(self, model, ids, positions, n_bytes=256 << 20):
        self.model, self.hidden, self.positions = model, model.hidden(ids), positions
        self.step = max(1, n_bytes // (8 * model.n_vocab))
        self.start, self.block = 0, np.empty((0, model.n_vocab))

    def __getitem__(self, i):
        if not self.start <= i < self.start + len(self.block):
            self.start = i
            self.block = self.model.logits(self.hidden[self.positions[i : i + self.step]])
        return self.block[i - self.start : i - self.start + 1]


class Comparison:
    """Everything that a line of the reply says about one position, against one row of logits."""

    def __init__(self, temperatures):
        self.temperatures = temperatures
        names = ("logprob", "logsumexp", "entropy", "varentropy", "next logprob", "sum of probabilities", "logprob > 0")
        self.worst = {name: stats.Worst(name) for name in names}
        self.ranks = self.wrong_ranks = 0

    def add(self, line, logits):
        for k, t in enumerate(self.temperatures):
            where = f"position {line['position']}, T = {t}"
            want = stats.logprobs(logits, t)[0]
            got = np.array(line["full"][k], dtype=float)
            bound = stats.bound(t)
            self.worst["logprob"].add(got, want, bound, lambda i, where=where: f"{where}, token {i}")
            self.worst["sum of probabilities"].add(np.exp(got).sum(), 1, 1e-5, lambda _, where=where: where)
            self.worst["logprob > 0"].add(max(got.max(), 0), 0, 1e-300, lambda _, where=where: where)
            numbers = [x[0] for x in stats.statistics(logits, t)]
            bounds = (bound, bound, stats.varentropy_bound(t, numbers[2]))
            for name, number, allowed in zip(("logsumexp", "entropy", "varentropy"), numbers, bounds, strict=True):
                self.worst[name].add(line[name][k], number, allowed, lambda _, where=where: where)
            if line["next"]:
                lp = want[line["next"]["id"]]
                self.worst["next logprob"].add(line["next"]["logprob"][k], lp, bound, lambda _, where=where: where)
        if line["next"]:
            _, lowest, highest = stats.ranks(logits, np.array([line["next"]["id"]]))
            self.ranks += 1
            self.wrong_ranks += not lowest[0] <= line["next"]["rank"] <= highest[0]

    def report(self):
        """Prints everything; True when all is within its bound."""
        for worst in self.worst.values():
            print(worst)
        print(f"next rank: {self.wrong_ranks} of {self.ranks} wrong beyond ties within the bound")
        compared = [w for w in self.worst.values() if w.n or w.name != "next logprob"]
        return all(w.ok() for w in compared) and self.wrong_ranks == 0


def main():
    args = arguments()
    temperatures = [float(t) for t in args.temperatures.split(",")]
    ids = text_ids(args)
    positions = list(range(len(ids))[slice(*(int(p) if p else None for p in args.positions.split(":")))])
    rows = Rows(Oracle(args.model), ids, positions)
    comparison = Comparison(temperatures)
    response = post(args.url, "/distribution", {
        "prompt": ids, "positions": positions, "top_n": "full", "format": "ndjson", "temperatures": temperatures})
    n = 0
    while raw := response.readline():
        line = json.loads(raw)
        if "error" in line:
            sys.exit(f"the server failed midway: {line['error']}")
        if n == 0 and "numerics" in line:
            print(f"{line['model']['name']}: {line['numerics']}, {len(ids)} tokens, {len(positions)} positions")
        if "position" in line:
            assert line["position"] == positions[n], f"line {n} is position {line['position']}, not {positions[n]}"
            comparison.add(line, rows[n])
            n += 1
    assert n == len(positions), f"the reply holds {n} of {len(positions)} positions"
    sys.exit(0 if comparison.report() else 1)


if __name__ == "__main__":
    main()
