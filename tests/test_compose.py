"""The service of docker/compose.yaml, from Debian's haproxy and prometheus and two servers built here.

The very files of docker/ are run; `put` changes addresses and the seconds between scrapes in them, and each change must
find what it changes. Load comes from threads over loopback. What it shows: a killed replica costs the requests that
were in flight on it, each of which ends in an error that its client can tell from a reply, and no other; one that is
ended by SIGTERM costs none; Prometheus counts what was sent.
"""

import collections
import contextlib
import dataclasses
import hashlib
import http.client
import json
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import arch_models
import pytest
import yaml
from serving import PATIENCE_S, Server, wait_until

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
N_CLIENTS = 8
LONG = "The quick brown fox jumps over the lazy dog. " * 5


def free_ports(n):
    """Below those that the system gives to connections and to `--port 0`, so that nobody gets one of them between this
    and the start of its program, or while a replica is gone."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(range(lowest // 2, lowest), lowest // 2):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
            if len(ports) == n:
                return ports
    raise AssertionError(f"no {n} free ports below {lowest}")


def put(text, **changes):
    """`text` with each old text replaced by its new one; every one must be there just once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


class Program:
    """A program until the end of the test; SIGTERM by its pid ends it."""

    def __init__(self, log, *command):
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen([*map(str, command)], stdout=out, stderr=subprocess.STDOUT)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def stop_at_once(server):
    """The exit code. A second signal ends the wait for a balancer that is not there."""
    if server.process.poll() is None:
        server.process.terminate()
        wait_until(lambda: "draining" in server.log() or server.process.poll() is not None, "it leaves")
    return server.stop()


class Stack:
    """Two replicas, the balancer before them and Prometheus over all three; `ports` by name."""

    def __init__(self, folder, logitd, model):
        self.folder, self.logitd, self.model, self.programs = folder, logitd, model, []
        self.ports = dict(zip(("replica-1", "replica-2", "haproxy", "stats", "prometheus"), free_ports(5)))
        replica = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["replica-1"]
        # the flags of compose.yaml, but for what a container needs; steps of one token, so that work takes a while; and
        # more time for a balancer that a busy machine keeps waiting
        other = ("--model=", "--host=", "--log-format=", "--drain-delay-seconds=")
        self.flags = [f for f in replica["command"][1:] if not f.startswith(other)]
        assert len(self.flags) == len(replica["command"]) - 1 - len(other)
        self.flags += ["--batch-tokens=1", "--drain-delay-seconds=10"]
        self.replicas = {}
        for name in ("replica-1", "replica-2"):
            self.start_replica(name)
        self.start_haproxy()
        self.start_prometheus()

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def start_replica(self, name):
        self.replicas[name] = Server(self.logitd, self.model, "--port", self.ports[name], *self.flags)

    def start_haproxy(self):
        config = put((DOCKER / "haproxy.cfg").read_text(), **{
            "bind :8080": f"bind {self.address('haproxy')}", "bind :8405": f"bind {self.address('stats')}",
            "replica-1 replica-1:8080": f"replica-1 {self.address('replica-1')}",
            "replica-2 replica-2:8080": f"replica-2 {self.address('replica-2')}"})  # fmt: skip
        (self.folder / "haproxy.cfg").write_text(config)
        self.haproxy = Program(self.folder / "haproxy.log", "haproxy", "-f", self.folder / "haproxy.cfg")
        self.programs.append(self.haproxy)

    def start_prometheus(self):
        config = put((DOCKER / "prometheus.yml").read_text(), **{
            "replica-1:8080": self.address("replica-1"), "replica-2:8080": self.address("replica-2"),
            "haproxy:8405": self.address("stats"), "scrape_interval: 5s": "scrape_interval: 500ms",
            "evaluation_interval: 5s": "evaluation_interval: 500ms"})  # fmt: skip
        (self.folder / "prometheus.yml").write_text(config)
        (self.folder / "alerts.yml").write_text((DOCKER / "alerts.yml").read_text())
        self.programs.append(Program(
            self.folder / "prometheus.log", "prometheus", f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/tsdb", f"--web.listen-address={self.address('prometheus')}"))  # fmt: skip

    def up(self):
        """The replicas that the balancer sends requests to."""
        return {name for name in self.replicas if self.stat(f'haproxy_server_status{{proxy="replicas",server="{name}",state="UP"}}')}

    def stat(self, series):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self.address("stats"), timeout=PATIENCE_S)
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
            connection.close()
            return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series + " ")), 0)
        return 0

    def query(self, expression):
        """Prometheus' instant vector: {labels, sorted, without the name: value}; {} while it does not answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self.address("prometheus"), timeout=PATIENCE_S)
            connection.request("GET", "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
            answer = json.loads(connection.getresponse().read())
            connection.close()
            assert answer["status"] == "success", answer
            return {tuple(v for k, v in sorted(row["metric"].items()) if k != "__name__"): float(row["value"][1])
                    for row in answer["data"]["result"]}  # fmt: skip
        return {}

    def stop(self):
        for program in self.programs:
            program.stop()
        return [stop_at_once(server) for server in self.replicas.values()]


@pytest.fixture(scope="module")
def stack(logitd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    running = Stack(folder, logitd, arch_models.write("llama_mha", folder / "tiny.gguf"))
    try:
        wait_until(lambda: running.up() == {"replica-1", "replica-2"}, "both replicas up")
        yield running
    finally:
        codes = running.stop()
    assert codes == [0] * len(codes)


# ------------------------------------------------------------------------------------------------------------- clients


@dataclasses.dataclass
class Outcome:
    """What a client saw of one request: "whole", "error" (a status that says so) or "cut"."""

    kind: str
    replica: str
    begun: float
    ended: float
    note: str = ""
    result: str = ""  # of a whole one: which body was asked, and a hash of what depends on it alone


BODIES = [
    {"prompt": "A short one", "top_n": 3},
    {"prompt": LONG, "top_n": 5},
    {"prompt": LONG, "top_n": "full", "format": "ndjson"},
    {"prompt": LONG, "top_n": "full", "format": "safetensors", "temperatures": [0.5, 1]},
]


def result_of(body, reply, data):
    """What the reply says of the prompt, as bytes; None if its end is missing, whatever its framing."""
    if body.get("format") == "ndjson":
        lines = data.splitlines()
        return b"".join(lines[1:-1]) if data.endswith(b"\n") and "timing_ms" in json.loads(lines[-1]) else None
    if body.get("format") == "safetensors":
        return data if len(data) == int(reply.headers["Content-Length"]) else None
    return json.dumps(json.loads(data)["results"]).encode()


def ask(stack, body):
    begun, replica, result = time.monotonic(), "", ""
    connection = http.client.HTTPConnection(stack.address("haproxy"), timeout=PATIENCE_S)
    try:
        connection.request("POST", "/distribution", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        replica = reply.headers["X-Replica"]
        data = reply.read()
        if reply.status == 200:
            found = result_of(body, reply, data)
            kind, note = ("cut", "its end is missing") if found is None else ("whole", "")
            result = "" if found is None else f"{body} {hashlib.sha256(found).hexdigest()}"
        else:
            kind, note = "error", f"{reply.status} {json.loads(data)['error']['code']}"
    except (OSError, http.client.HTTPException) as error:
        kind, note = "cut", repr(error)
    finally:
        connection.close()
    return Outcome(kind, replica, begun, time.monotonic(), note, result)


@contextlib.contextmanager
def load(stack):
    """N_CLIENTS clients that ask one request after the other; gives the list that their outcomes go to."""
    outcomes, ending = [], threading.Event()

    def client(i):
        while not ending.is_set():
            outcomes.append(ask(stack, BODIES[i % len(BODIES)]))
            i += 1

    threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        ending.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    results = {o.result for o in outcomes if o.kind == "whole"}
    assert len(results) == len(BODIES), "the same request has the same result on both replicas, always"


def answered_by(outcomes, replica, since=0.0):
    return [o for o in outcomes if o.kind == "whole" and o.replica == replica and o.begun >= since]


# --------------------------------------------------------------------------------------------------------------- tests


def test_prometheus_counts_what_was_sent(stack):
    """By both replicas together, since the balancer chooses: so many of each code, and of each route."""
    sent = collections.Counter()
    for i in range(24):
        body, code = [({"prompt": f"text {i}", "top_n": 1}, 200), ({"prompt": [], "top_n": 1}, 400)][i % 4 == 3]
        assert (ask(stack, body).kind == "whole") == (code == 200)
        sent[str(code)] += 1
    total = 'sum by (code) (logitd_requests_total{route="/distribution"}) > 0'
    wait_until(lambda: stack.query(total) == {(code,): n for code, n in sent.items()}, f"{sent}")
    wait_until(lambda: stack.query('sum(logitd_jobs_total{result="done"})') == {(): sent["200"]}, "jobs done")
    each = stack.query('sum by (instance) (logitd_requests_total{route="/distribution"})')
    assert len(each) == 2 and min(each.values()) > 0, "both replicas had some"
    wait_until(lambda: stack.query("sum by (job) (up)") == {("logitd",): 2, ("haproxy",): 1}, "all three are scraped")
    passed_on = 'sum by (code) (haproxy_server_http_responses_total{proxy="replicas"}) > 0'
    wait_until(lambda: stack.query(passed_on) == {(c[0] + "xx",): n for c, n in sent.items()}, "the balancer's counts")


@pytest.mark.parametrize("format", ["ndjson", "json"])
def test_a_client_that_leaves_costs_nothing_more(stack, format):
    """Through the balancer: after the first lines, which come before the work ends, or while it waits for the first byte."""
    canceled = 'sum(logitd_jobs_total{result="canceled"})'
    before = wait_until(lambda: stack.query(canceled), "a first count")[()]
    connection = http.client.HTTPConnection(stack.address("haproxy"), timeout=PATIENCE_S)
    body = {"prompt": [LONG] * 900, "top_n": 1, "format": format}  # half a minute: some scrape sees it
    connection.request("POST", "/distribution", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse() if format == "ndjson" else None
    if reply:
        lines = [reply.readline() for _ in range(4)]
        assert lines[-1].startswith(b'{"index"')
    wait_until(lambda: stack.query('sum(logitd_jobs{state="running"})') == {(): 1}, "a running job")
    if reply:
        reply.close()
    connection.close()
    wait_until(lambda: stack.query(canceled) == {(): before + 1}, "the job is cancelled")


def stops_with_work_in_flight(stack, name):
    """Stops a replica, so that what is in flight on it stays so. False: that was less than two requests, and it runs on."""
    process, in_flight = stack.replicas[name].process, f'haproxy_server_current_sessions{{proxy="replicas",server="{name}"}}'
    process.send_signal(signal.SIGSTOP)
    for _ in range(2):  # what it had answered before has gone by the second time
        if stack.stat(in_flight) < 2:
            process.send_signal(signal.SIGCONT)
            return False
        time.sleep(0.2)
    return True


def test_a_killed_replica_costs_what_was_in_flight_on_it(stack):
    victim = stack.replicas["replica-1"]
    with load(stack) as outcomes:
        wait_until(lambda: answered_by(outcomes, "replica-1") and answered_by(outcomes, "replica-2"), "both answer")
        wait_until(lambda: stops_with_work_in_flight(stack, "replica-1"), "work in flight")
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        killed = time.monotonic()
        wait_until(lambda: len(answered_by(outcomes, "replica-2", killed)) >= 2 * N_CLIENTS, "the other goes on")
        wait_until(lambda: sum(stack.query('up{job="logitd"}').values()) == 1, "Prometheus misses it")
        wait_until(lambda: stack.query('ALERTS{alertname="LogitdReplicaDown"}'), "the alert that starts to wait")
        stack.start_replica("replica-1")
        again = time.monotonic()
        wait_until(lambda: answered_by(outcomes, "replica-1", again), "it is taken back")
    lost = [o for o in outcomes if o.kind != "whole"]
    assert 2 <= len(lost) <= N_CLIENTS, lost
    for o in lost:
        assert o.begun <= killed <= o.ended + 1, o
        assert o.replica == "replica-1" or (o.kind == "cut" and not o.replica), o  # cut before any header came
        assert o.kind == "cut" or o.note == "502 replica_lost", o


def test_a_replica_that_is_ended_costs_nothing(stack):
    """SIGTERM: first it is not ready, and the balancer sends no more; then it answers what it has and ends with 0."""
    leaver = stack.replicas["replica-2"]
    with load(stack) as outcomes:
        wait_until(lambda: answered_by(outcomes, "replica-1") and answered_by(outcomes, "replica-2"), "both answer")
        leaver.process.send_signal(signal.SIGTERM)
        wait_until(lambda: leaver.get("/health?probe=ready").status == 503, "it says that it leaves")
        assert leaver.post("/distribution", BODIES[0]).status == 200, "what is under way to it is still taken"
        wait_until(lambda: stack.up() == {"replica-1"}, "the balancer sees it leave")
        assert leaver.process.wait(PATIENCE_S) == 0
        gone = time.monotonic()
        wait_until(lambda: len(answered_by(outcomes, "replica-1", gone)) >= 2 * N_CLIENTS, "the other goes on")
    assert [o for o in outcomes if o.kind != "whole"] == []


def test_no_replica_at_all_is_said_in_json(stack):
    assert stop_at_once(stack.replicas["replica-1"]) == 0
    connection = http.client.HTTPConnection(stack.address("haproxy"), timeout=PATIENCE_S)
    connection.request("GET", "/model")
    reply = connection.getresponse()
    assert reply.status == 503 and reply.headers["Retry-After"] and json.loads(reply.read())["error"]["code"] == "no_replica"
    connection.close()


RULES = {  # alert, minutes until it must fire, a series that must make it do so, one that must not
    "LogitdReplicaDown": (2, [('up{job="logitd",instance="a"}', "0x20")], [('up{job="logitd",instance="a"}', "0 1x20")]),
    "LogitdNotReady": (3, [('logitd_ready{instance="a"}', "0x20")], [('logitd_ready{instance="a"}', "1x20")]),
    "LogitdErrors": (
        11,
        [('logitd_requests_total{code="200"}', "0+90x20"), ('logitd_requests_total{code="503"}', "0+10x20")],
        [('logitd_requests_total{code="200"}', "0+97x20"), ('logitd_requests_total{code="503"}', "0+3x20")],
    ),
    "LogitdSlowQueue": (
        11,
        [('logitd_queue_seconds_bucket{instance="a",le="10"}', "0+85x20"),
         ('logitd_queue_seconds_bucket{instance="a",le="30"}', "0+100x20"),
         ('logitd_queue_seconds_bucket{instance="a",le="+Inf"}', "0+100x20")],
        [('logitd_queue_seconds_bucket{instance="a",le="10"}', "0+95x20"),
         ('logitd_queue_seconds_bucket{instance="a",le="30"}', "0+100x20"),
         ('logitd_queue_seconds_bucket{instance="a",le="+Inf"}', "0+100x20")],
    ),
}  # fmt: skip


def test_alerts_fire_when_they_should_and_only_then(tmp_path):
    rules = yaml.safe_load((DOCKER / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == set(RULES)
    tests = []
    for alert, (minutes, firing, quiet) in RULES.items():
        for series, fires in ((firing, True), (quiet, False)):
            tests.append({"interval": "1m", "input_series": [{"series": s, "values": v} for s, v in series],
                          "promql_expr_test": [{"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                                                "eval_time": f"{minutes}m",
                                                "exp_samples": [{"value": 1, "labels": "{}"}] if fires else []}]})  # fmt: skip
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": [str(DOCKER / "alerts.yml")], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
