"""GET /metrics: every line is well formed, the numbers are those of what was asked, and they only grow."""

import re

LINE = re.compile(r'([a-z_]+)(\{(?:[a-z0-9]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+)')


def read(server):
    """Sample name with its labels → value, and the types; checks the format on the way."""
    reply = server.get("/metrics")
    assert reply.status == 200 and reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples, types, family = {}, {}, None
    for line in reply.body.decode().splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in types and len(line.split()) > 3
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            types[family] = line.split()[3]
        else:
            name, labels, value = LINE.fullmatch(line).groups()
            assert name == family or (types[family] == "histogram" and name in {family + end for end in ("_bucket", "_sum", "_count")})
            assert name + (labels or "") not in samples
            samples[name + (labels or "")] = float(value)
    return samples, types


def test_metrics(start_server, tiny):
    server = start_server(tiny)
    first, types = read(server)
    assert {"logitd_requests_total": "counter", "logitd_queue_seconds": "histogram", "logitd_jobs": "gauge"}.items() <= types.items()
    sizes = [3, 20, 100]
    for n in sizes:
        server.distribution(prompt=[5] * n, top_n=3)
    for body in ({"prompt": ""}, {"promt": 1}):
        assert server.post("/distribution", body).status == 400
    assert server.get("/nowhere").status == 404
    assert server.distribution(prompt=[5], top_n="full")
    samples, n_read = {"logitd_requests_in_flight": 0}, 0
    while samples["logitd_requests_in_flight"] != 1:  # a request is counted after its last byte, which its client may be ahead of
        samples, _ = read(server)
        n_read += 1
    assert samples['logitd_requests_total{route="/distribution",code="200"}'] == 4
    assert samples['logitd_requests_total{route="/distribution",code="400"}'] == 2
    assert samples['logitd_requests_total{route="other",code="404"}'] == 1
    assert samples['logitd_requests_total{route="/metrics",code="200"}'] == n_read  # with the first; this one has not ended
    assert samples['logitd_request_seconds_count{route="/distribution"}'] == 6
    assert samples["logitd_tokens_total"] == samples["logitd_batch_tokens_sum"] == sum(sizes) + 1
    assert samples['logitd_batch_tokens_bucket{le="1"}'] == 1 and samples['logitd_batch_tokens_bucket{le="4"}'] == 2
    assert samples['logitd_batch_tokens_bucket{le="32"}'] == 3 and samples['logitd_batch_tokens_bucket{le="128"}'] == 4
    assert samples['logitd_jobs_total{result="done"}'] == 4 and samples['logitd_jobs{state="running"}'] == 0
    assert samples["logitd_ready"] == 1 and samples["logitd_requests_in_flight"] == 1
    assert samples["logitd_resident_bytes"] > 1 << 20 and samples["logitd_allocated_bytes"] > 1 << 20
    for span in ("queue", "compute", "encode"):
        assert samples[f"logitd_{span}_seconds_count"] == samples[f'logitd_{span}_seconds_bucket{{le="+Inf"}}'] == 4
        buckets = [value for name, value in samples.items() if name.startswith(f"logitd_{span}_seconds_bucket")]
        assert buckets == sorted(buckets)
    assert samples["logitd_compute_seconds_sum"] > 0 and samples["logitd_reply_bytes_total"] > 1000
    for name, value in first.items():  # counters never fall
        if name.split("{")[0].endswith(("_total", "_count", "_bucket", "_sum")):
            assert samples[name] >= value, name


def test_the_model_is_named(start_server, tiny):
    server = start_server(tiny)
    model = server.get("/model").json()
    samples, _ = read(server)
    (info,) = [name for name in samples if name.startswith("logitd_model_info")]
    assert samples[info] == 1 and f'sha256="{model["sha256"]}"' in info and f'kernel="{model["kernel"]}"' in info
