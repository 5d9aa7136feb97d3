"""Running `logitd serve` for tests: start it on a free port, talk HTTP to it, end it as a service manager would.

Needs only the standard library. Promises that the process is ended by its own pid, that SIGTERM makes it exit 0, and
that whatever it wrote on stderr is shown when it does not answer. Does not retry or hide errors of the server.
"""

import http.client
import json
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

START_S = 600  # opening a model: hashing and mapping it, also under a sanitizer
STOP_S = 600
REQUEST_S = 900  # whole-text requests, also under a sanitizer on a shared machine
PATIENCE_S = 600  # ends a test that hangs; nothing is measured by it


def wait_until(condition, what="the condition", every_s=0.02):
    """Until it is true of something; returns that."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(every_s)
    return value


class Reply:
    """One HTTP reply, read whole."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self, **options):
        return json.loads(self.body, **options)

    def lines(self, **options):
        """The objects of an ndjson reply."""
        return [json.loads(line, **options) for line in self.body.splitlines()]


def request_bytes(body, path="/distribution", extra=""):
    """A POST as it goes over the wire. `body`: bytes as they are, anything else as JSON; `extra`: further headers."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def read_reply(connection):
    """The reply that a raw connection gets next."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Reply(response.status, response.headers, response.read())


class Server:
    """`logitd serve --model MODEL --port 0 ARGS`; also a context manager, which asserts the clean end."""

    def __init__(self, binary, model, *args):
        command = [str(binary), "serve", "--model", str(model), "--port", "0", *map(str, args)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                                        errors="backslashreplace")  # fmt: skip
        self.stderr = []
        self._lines = queue.Queue()
        threading.Thread(target=self._drain_stdout, daemon=True).start()
        self._stderr_thread = threading.Thread(target=lambda: self.stderr.extend(self.process.stderr), daemon=True)
        self._stderr_thread.start()
        self.url = self._wait_for_url()
        self.netloc = urllib.parse.urlsplit(self.url).netloc

    def _drain_stdout(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _wait_for_url(self):
        while True:
            try:
                line = self._lines.get(timeout=START_S)
            except queue.Empty:
                self.process.kill()
                raise AssertionError(f"no `listening on` line after {START_S} s; stderr: {self.log()}") from None
            if line is None:
                raise AssertionError(f"logitd ended with {self.process.wait()} at start; stderr: {self.log()}")
            if match := re.search(r"listening on (https?://\S+)", line):
                return match[1]

    def log(self):
        return "".join(self.stderr[-40:])

    def request(self, method, path, body=None, headers=()):
        """`body`: bytes as they are, anything else as JSON."""
        headers = dict(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.netloc, timeout=REQUEST_S)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def connect(self, source=None):
        """A raw connection. Bound to the loopback address `source` only if need be: bind takes no port that closed
        connections still hold, and there are 28,000."""
        host, port = self.netloc.split(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE_S, source_address=source and (source, 0))

    def get(self, path, headers=()):
        return self.request("GET", path, None, headers)

    def post(self, path, body, headers=()):
        return self.request("POST", path, body, headers)

    def wait_at_rest(self):
        """Until no other request is in flight. The server closes a request's books (counts, log line, memory) after its
        last byte is sent, so a client that has its reply may still be ahead of them. Needs no key."""
        wait_until(lambda: re.search(rb"^logitd_requests_in_flight 1$", self.get("/metrics").body, re.MULTILINE), "rest")

    def distribution(self, **body):
        """POST /distribution that must succeed; the reply's JSON."""
        reply = self.post("/distribution", body)
        assert reply.status == 200, f"{reply.status}: {reply.body[:600]!r}; stderr: {self.log()}"
        return reply.json()

    def stop(self):
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"logitd did not end within {STOP_S} s of SIGTERM; stderr: {self.log()}") from None
        self._stderr_thread.join(STOP_S)
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        code = self.stop()
        assert kind or code == 0, f"logitd exited with {code} after SIGTERM; stderr: {self.log()}"
