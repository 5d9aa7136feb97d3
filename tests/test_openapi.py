"""GET /openapi.json: names every route, its examples work, and schemathesis finds no answer that it does not describe."""

import subprocess
import sys

import pytest
from serving import Server

ALL_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def server(logitd, tiny):
    with Server(logitd, tiny) as running:
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


def test_every_field_is_explained(document):
    def check(schema, path):
        for name, field in schema.get("properties", {}).items():
            assert field.get("description"), f"{path}.{name}"
            check(field, f"{path}.{name}")
        for inner in schema.get("oneOf", []) + [schema[key] for key in ("items",) if key in schema]:
            check(inner, path)

    for name, schema in document["components"]["schemas"].items():
        check(schema, name)
    for operation in operations(document).values():
        assert all(parameter["description"] for parameter in operation.get("parameters", []))


def test_no_answer_has_a_field_that_is_not_there(server, document):
    schemas = document["components"]["schemas"]

    def check(value, schema, path):
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        choices = schema.get("oneOf", [schema])
        if isinstance(value, dict) and any("properties" in choice for choice in choices):
            known = {name: field for choice in choices for name, field in choice.get("properties", {}).items()}
            assert value.keys() <= known.keys(), (path, value.keys() - known.keys())
            for name, inner in value.items():
                check(inner, known[name], f"{path}.{name}")
        for item in value if isinstance(value, list) else []:
            check(item, schema.get("items", {}), path)

    for values in ("logprob", "prob", "logit"):
        check(server.distribution(prompt="ab", values=values, token_ids=[3], positions=[0, -1]), schemas["Distribution"], values)
    check(server.distribution(prompt=[1], top_n="full"), schemas["Distribution"], "full")
    for name, path in (("Model", "/model"), ("Health", "/health"), ("Vocab", "/vocab")):
        check(server.get(path).json(), schemas[name], name)
    check(server.post("/tokenize", {"text": "ab"}).json(), schemas["Tokens"], "Tokens")
    check(server.post("/detokenize", {"ids": [5]}).json(), schemas["Text"], "Text")


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
               "--no-color", "--request-timeout", "600"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    server.wait_at_rest()
    assert server.get("/health").json()["jobs"]["held"] == 0
