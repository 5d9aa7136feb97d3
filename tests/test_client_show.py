"""What people see of the Python client: HTML in notebooks, the line in a terminal, the widget's state and its drawing."""

import base64
import html
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import logitd
import numpy as np
import pytest
from logitd import __main__ as terminal
from logitd import _widget
from logitd._heat import heat, visible, visible_lines
from logitd._html import MOST_OPAQUE

ROOT = Path(__file__).resolve().parent.parent
TEXT = "The capital of France is Paris.\nif x < 3 & y:\t<b>naïve 𓀀</b>"
CSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def client(server):
    with logitd.Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def dist(client):
    return client.distribution(TEXT, temperatures=[0.5, 1.0])


def test_levels_are_clamped_at_two_and_a_half_sigmas(client):
    dist = client.distribution("the " * 60 + "zygote " + "the " * 60)
    for by in ("surprisal", "rank", "entropy", "top1"):
        shown = heat(dist, by)
        known = shown.values[1:]
        scaled = np.log1p(known) if by == "rank" else known
        low, high = scaled.mean() - 2.5 * scaled.std(), scaled.mean() + 2.5 * scaled.std()
        low, high = max(low, scaled.min()), min(high, scaled.max())
        np.testing.assert_allclose(shown.levels[1:], np.clip((scaled - low) / (high - low), 0, 1), atol=1e-12)
        assert np.isnan(shown.levels[0]) and shown.levels[1:].max() == 1
    assert heat(dist, "surprisal").high < heat(dist, "surprisal").values[1:].max()  # something was clamped


def test_a_text_of_one_token_has_no_levels(client):
    shown = heat(client.distribution("The"))
    assert np.isnan(shown.levels).all() and (shown.low, shown.high) == (0, 1)


class Spans(HTMLParser):
    """The coloured tokens of the HTML: (opacity, tooltip, text)."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.spans, self.inside = set(), [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if tag == "span" and "title" in attrs:
            self.spans.append([float(attrs["style"].split(",")[-1].rstrip(")")), attrs["title"], ""])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside &= tag != "span"

    def handle_data(self, data):
        if self.inside:
            self.spans[-1][2] += data


def test_html(dist):
    text = dist._repr_html_()
    parsed, shown = Spans(text), heat(dist)
    assert parsed.tags <= {"style", "div", "span", "i"} and "http" not in text  # no script, nothing fetched
    assert len(parsed.spans) == len(dist.tokens)
    for i, (opacity, tip, drawn) in enumerate(parsed.spans):
        token = dist.tokens[i]
        wanted = 0 if i == 0 else MOST_OPAQUE * shown.levels[i]
        assert opacity == pytest.approx(wanted, abs=6e-4)
        assert drawn == visible(token.text).replace("⏎", "⏎\n")
        if i:
            best = dist.top(i - 1, n=1)[0]
            assert f"surprisal {dist.surprisal[i - 1, 1]:.2f} nats" in tip and f"{100 * best.prob:5.1f} %" in tip
    assert parsed.spans[0][1].endswith("first token")
    assert "⏎" in "".join(span[2] for span in parsed.spans) and "�" in "".join(span[2] for span in parsed.spans)
    assert "T = 1 " in text and "T = 0.5 " in dist.html("entropy", temperature=0.5)


def test_lines_of_code_are_lines(client):
    """Also where a token is a line break and the spaces of an indentation."""
    dist = client.distribution("if x:\n    if y:\n\n        return z\n")
    assert any(token.text.startswith("\n ") for token in dist.tokens)
    shown = heat(dist)
    for line in (terminal.heat_line(dist, shown, "256"), terminal.heat_line(dist, shown, "none"),
                 "".join(span[2] for span in Spans(dist._repr_html_()).spans)):  # fmt: skip
        bare = re.sub(r"\x1b\[[\d;]*m|\[\d+\.\d+\]|[·⏎ ]", "", line)
        assert bare.rstrip("\n") == "ifx:\nify:\n\nreturnz"
    assert re.search(r":\[\S+⏎\n·+\[", terminal.heat_line(dist, shown, "none"))  # a value stands behind the whole token
    assert [state["lines"] for state in _widget.tokens_state(dist)] == [visible_lines(token.text) for token in dist.tokens]
    assert visible_lines("\n   ") == ["⏎", "···"] and visible_lines("a\n") == ["a⏎", ""] and visible_lines("") == ["[0 bytes]"]


def test_html_of_less(client):
    assert client.distribution("a b", top_n=0)._repr_html_().count("title=") == 2
    assert "top-1 probability" in client.distribution("a b", stats=False)._repr_html_()
    assert client.distribution("a b", stats=False, top_n=0)._repr_html_() == ""
    escaped = client.distribution("<script>alert(1)</script>")._repr_html_()
    assert "<script" not in escaped and html.unescape(escaped).count("script") > 1


# ------------------------------------------------------------------------------------------------------------- terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("when", "out", "env", "depth"),
    [
        ("auto", Terminal(), {"TERM": "xterm", "COLORTERM": "truecolor"}, "24bit"),
        ("auto", Terminal(), {"TERM": "xterm-256color"}, "256"),
        ("auto", Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, "none"),
        ("auto", Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, "256"),
        ("auto", Terminal(), {"TERM": "dumb"}, "none"),
        ("auto", io.StringIO(), {"TERM": "xterm"}, "none"),
        ("always", io.StringIO(), {"NO_COLOR": "1"}, "256"),
        ("never", Terminal(), {"TERM": "xterm"}, "none"),
    ],
)
def test_colour_depth(when, out, env, depth):
    assert terminal.colour_depth(when, out, env) == depth


def contrast(a, b):
    """WCAG's ratio of two colours."""
    linear = lambda c: c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4  # noqa: E731
    light = [0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255) for r, g, b in (a, b)]
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_ink_is_readable_on_every_background():
    for step in range(101):
        numbers = [int(n) for n in re.findall(r"\d+", terminal.paint("x", step / 100, "24bit").split("m")[0])]
        assert contrast(numbers[2:5], numbers[7:10]) >= 4.5, step
    cube = [0, 95, 135, 175, 215, 255]
    rgb = lambda n: [cube[(n - 16) // 36], cube[(n - 16) // 6 % 6], cube[(n - 16) % 6]]  # noqa: E731
    for step in range(101):
        numbers = [int(n) for n in re.findall(r"\d+", terminal.paint("x", step / 100, "256").split("m")[0])]
        assert contrast(rgb(numbers[2]), rgb(numbers[5])) >= 4.5, step
    for page, ink in (([255] * 3, [0] * 3), ([17] * 3, [225] * 3)):  # HTML: the page's ink on the hue over its ground
        back = [MOST_OPAQUE * h + (1 - MOST_OPAQUE) * p for h, p in zip((221, 106, 18), page, strict=True)]
        assert contrast(back, ink) >= 4.5


def test_heat_line(dist):
    shown = heat(dist)
    for depth in ("24bit", "256"):
        line = terminal.heat_line(dist, shown, depth)
        assert CSI.sub("", line) == "".join(
            visible(t.text) + ("\n" if t.text.endswith("\n") else "") for t in dist.tokens)
        assert line.count("\x1b[0m") == len(dist.tokens) - 1
    plain = terminal.heat_line(dist, shown, "none")
    assert f" capital[{dist.surprisal[0, 1]:.2f}]" in plain and "\x1b" not in plain


def run(capsys, *args):
    """Exit code, stdout, stderr of the command, in this process."""
    code = terminal.main([*args])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_python_m_logitd(server, client, tmp_path, capsys, monkeypatch):
    (tmp_path / "text").write_text("The cat sat", encoding="utf-8")
    ranks = client.distribution("The cat sat").next_rank
    command = [sys.executable, "-m", "logitd", "--url", server.url, "--by", "rank"]
    done = subprocess.run(command, input=b"The cat sat", capture_output=True, cwd=ROOT / "python", check=True)
    assert done.stdout.decode().splitlines()[0] == f"The cat[{ranks[0]:,}] sat[{ranks[1]:,}]"
    assert run(capsys, "--url", server.url, "--file", str(tmp_path / "text"), "--by", "rank")[1] == done.stdout.decode()
    monkeypatch.delenv("COLORTERM", raising=False)
    assert "\x1b[38;5;" in run(capsys, "--url", server.url, "The cat sat", "--color", "always")[1]
    summary = client.distribution("The cat sat", temperatures=[2.0]).summary[0]
    shown = run(capsys, "--url", server.url, "The cat sat", "--temperature", "2")[1]
    assert f"cross-entropy {summary.cross_entropy:.3f} nats" in shown


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--file", "/nonexistent"], "No such file"),
        (["x", "--temperature", "0"], "temperatures[0] is 0"),
        (["x", "--model", "/nonexistent.gguf"], "there is no model /nonexistent.gguf"),
        (["--file", sys.executable], f"{sys.executable} is no text in UTF-8"),
        ([], "there is no text"),
    ],
)
def test_python_m_logitd_fails_with_a_sentence(server, args, sentence, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, err = run(capsys, *([] if "--model" in args else ["--url", server.url]), *args)
    assert code == 1 and out == "" and len(err.splitlines()) == 1
    assert err.startswith("logitd: ") and sentence in err


def test_python_m_logitd_takes_one_text_from_one_server_and_ctrl_c(capsys, monkeypatch):
    for args, sentence in ((["x", "--file", "y"], "not allowed with argument"), (["x", "--url", "u", "--model", "m"], "--model: not allowed")):
        with pytest.raises(SystemExit):
            run(capsys, *args)
        assert sentence in capsys.readouterr().err

    class Interrupted(io.StringIO):
        def read(self):
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    assert run(capsys) == (130, "", "")


# --------------------------------------------------------------------------------------------------------------- widget


def test_widget_state(client, dist):
    tokens = _widget.tokens_state(dist, "entropy")
    assert [t["text"] for t in tokens] == [visible(t.text) for t in dist.tokens]
    assert tokens[1]["value"] == f"entropy before {dist.entropy[0, 1]:.2f} nats" and all(t["asked"] for t in tokens)
    state = _widget.position_state(dist, 4, client)
    logits = np.frombuffer(state["logits"], "<f4")
    full = client.distribution(TEXT, positions=[4], top_n="full", values="logit")
    np.testing.assert_array_equal(logits, full.logit[0])  # of the text cut there, the same bits
    assert [e["id"] for e in state["top"]] == dist.top_id[4, :15].tolist()
    assert state["next"]["id"] == dist.token_id[5] and state["next"]["rank"] == dist.next_rank[4]
    assert _widget.position_state(full, 4, None)["logits"] == state["logits"]  # without a server
    assert _widget.position_state(dist, len(dist) - 1, client)["next"] is None
    with pytest.raises(logitd.LogitdError, match="a widget needs a client"):
        _widget.position_state(dist, 4, None)


def test_widget_follows_the_chosen_token(client, dist):
    made = logitd.widget(dist, client)
    assert made.state["position"] == len(dist) - 1 and len(made.tokens) == len(dist)
    made.chosen = 3
    assert made.state["position"] == 3 and made.state["top"][0]["id"] == dist.top_id[3, 0] and made.error == ""
    lonely = logitd.widget(dist)
    assert lonely.error.startswith("a widget needs a client") and lonely.state == {}


PAGE = """<!doctype html><meta charset=utf-8><link rel=stylesheet href=widget.css><div id=el></div><script type=module>
import widget, {{ statistics, probability, temperature_of, step_of }} from "./widget.js";
const state = {state}, tokens = {tokens};
const logits = Uint8Array.from(atob(state.logits), (c) => c.charCodeAt(0));
const shifted = new Uint8Array(logits.length + 3); // as a message brings it: not at a multiple of four
shifted.set(logits, 3);
state.logits = new DataView(shifted.buffer, 3);
const values = {{ tokens, state, chosen: state.position, error: "" }}, asked = [];
const model = {{ get: (k) => values[k], set: (k, v) => {{ values[k] = v; asked.push(v); }}, save_changes() {{}}, on() {{}} }};
const el = document.getElementById("el");
widget.render({{ model, el }});
const shown = () => [...el.querySelectorAll(".bar")].map((b) => [b.querySelector(".text").textContent, b.querySelector(".p").textContent, b.className]);
const slider = el.querySelector("input"), at = {{}};
for (const t of [1, 0.01, 3]) {{
  slider.value = step_of(t);
  slider.dispatchEvent(new Event("input"));
  at[t] = {{ bars: shown(), words: el.querySelector(".words").textContent }};
}}
const all = new Float32Array(logits.buffer), start = performance.now(), found = statistics(all, 0.7);
const ms = performance.now() - start;
el.querySelectorAll(".token")[2].dispatchEvent(new Event("mouseenter"));
const out = document.createElement("pre");
out.id = "out";
out.textContent = JSON.stringify({{ at, asked, ms, entropy: found.entropy, p: probability(all[504], 0.7, found) }});
document.body.append(out);
</script>"""


def test_widget_is_drawn_in_a_browser(client, dist, tmp_path):
    """In Debian's Chromium: the bars at three temperatures are NumPy's, in the order of the logits."""
    state = _widget.position_state(dist, 4, client)
    logits = np.frombuffer(state["logits"], "<f4")
    as_json = json.dumps({**state, "logits": base64.b64encode(state["logits"]).decode()})
    for name in ("widget.js", "widget.css"):
        (tmp_path / name).write_bytes((ROOT / "python" / "logitd" / name).read_bytes())
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(state=as_json, tokens=json.dumps(_widget.tokens_state(dist))), encoding="utf-8")
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-1500:]
    out = json.loads(html.unescape(found[1]))
    for t in (1, 0.01, 3):
        p = np.exp(logitd.log_softmax(logits, t))
        bars = out["at"][str(t)]["bars"]
        assert [bar[0] for bar in bars][:15] == [e["text"] for e in state["top"]]
        for entry, bar in zip(state["top"], bars, strict=False):
            assert float(bar[1].rstrip(" %")) == pytest.approx(100 * p[entry["id"]], abs=0.0501)
        assert [bar[0] for bar in bars if "came" in bar[2]] == [state["next"]["text"]]
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
        assert f"entropy {entropy:.2f} nats" in out["at"][str(t)]["words"]
    p = np.exp(logitd.log_softmax(logits, 0.7))
    assert out["p"] == pytest.approx(p[504], rel=1e-9) and out["entropy"] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-9)
    assert out["asked"] == [1]  # hovering over token 2 asks for what came before it
