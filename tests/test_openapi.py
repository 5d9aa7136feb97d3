"""GET /openapi.json: names every route, its examples work, and schemathesis finds no answer that it does not describe."""

import subprocess
import sys

import arch_models
import pytest
from serving import Server

ALL_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def server(logitd, tmp_path_factory):
    with Server(logitd, arch_models.write("llama_mha", tmp_path_factory.mktemp("openapi") / "tiny.gguf")) as running:
        yield running


@pytest.fixture(scope="module")
def document(server):
    reply = server.get("/openapi.json")
    assert reply.status == 200 and reply.headers["Content-Type"] == "application/json"
    return reply.json()


def operations(document):
    return {(method.upper(), path): operation for path, item in document["paths"].items() for method, operation in item.items()}


def test_document(server, document):
    assert document["openapi"] == "3.1.0" and document["info"]["version"] == server.get("/model").json()["version"]
    routes = ["/distribution", "/tokenize", "/detokenize", "/model", "/vocab", "/health", "/metrics", "/openapi.json", "/", "/docs"]
    assert sorted(document["paths"]) == sorted(routes)
    limits = server.get("/model").json()["limits"]
    fields = document["components"]["schemas"]["DistributionRequest"]["properties"]
    assert fields["temperatures"]["maxItems"] == limits["temperatures"]
    assert fields["temperature"]["minimum"] == limits["temperature_min"] and fields["temperature"]["maximum"] == limits["temperature_max"]
    assert fields["token_ids"]["maxItems"] == limits["token_ids"]


def test_every_field_is_there(server, document):
    """The sentence about an unknown field lists those that there are."""
    fields = document["components"]["schemas"]["DistributionRequest"]["properties"]
    for name in fields:
        error = server.post("/distribution", {"prompt": "a", name: None}).json()["error"]
        assert error["param"] == name and "null" in error["message"], error


def test_examples(server, document):
    for (method, path), operation in operations(document).items():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        bodies = [example["value"] for example in content.get("examples", {}).values()]
        bodies += [content["example"]] if "example" in content else []
        assert bodies or method == "GET", path
        for body in bodies or [None]:
            reply = server.request(method, path, body)
            assert reply.status == 200, (path, body, reply.body[:300])
            assert reply.headers["Content-Type"].split(";")[0] in operation["responses"]["200"]["content"]
            assert reply.headers["X-Request-Id"]


def test_schemathesis(server):
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", server.url + "/openapi.json",
               "--checks", ALL_CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--seed", "1",
               "--no-color", "--request-timeout", "60"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.get("/health").json()["jobs"]["held"] == 0
