"""The page at / in a real browser on the real model: what it shows equals what the API answers, and it can be used.

The tests of one browser share it and the run's SmolLM2 server; each opens the page anew.
"""

import csv
import io
import json
import pathlib
import re
import subprocess

import arch_models
import numpy as np
import pytest
import safetensors.numpy
from browsing import Explorer, chromium

TEXT = "The capital of France is Paris, and the capital of Japan is Tokyo."
OTHER = "The capital of France is Lyon, and the capital of Japan is Tokyo."
TOLERANCE = 1e-6  # the page shows the reply's own numbers
WHOLE = 3e-5  # from the logits in float64, against the server's float32


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def explorer(browser, server):
    tab = Explorer(browser, server.url)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def reply(server):
    """What the API says of TEXT."""
    return server.distribution(prompt=TEXT)["results"][0]


def luminance(colour):
    channels = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def full_logprobs(server, ids, temperature=1.0):
    """[n_vocab] of what follows these ids, float64."""
    body = {"prompt": ids, "positions": "last", "top_n": "full", "values": "logit", "format": "safetensors"}
    logits = safetensors.numpy.load(server.post("/distribution", body).body)["prompt.0.logit"][0].astype(np.float64)
    x = (logits - logits.max()) / temperature
    return x - np.log(np.exp(x).sum())


# --------------------------------------------------------------------------------------------------------- the reply


def test_headers(server):
    for path in ("/", "/docs"):
        page = server.get(path)
        assert page.status == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert re.fullmatch(r"'sha256-[\w+/=]{44}'", policy["script-src"]) and re.fullmatch(r"'sha256-[\w+/=]{44}'", policy["style-src"])
        assert policy["connect-src"] == "'self'" and page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Cache-Control"] == "no-cache" and page.headers["Referrer-Policy"] == "no-referrer"
        etag = page.headers["ETag"]
        for tags in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
            kept = server.get(path, {"If-None-Match": tags})
            assert (kept.status, kept.body, kept.headers["ETag"]) == (304, b"", etag), tags
        assert server.get(path, {"If-None-Match": 'W/"other"'}).status == 200
        head = server.request("HEAD", path)
        assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) == len(page.body)
        small = server.get(path, {"Accept-Encoding": "gzip"})
        assert small.headers["Content-Encoding"] == "gzip" and len(small.body) < len(page.body) / 2


# ------------------------------------------------------------------------------------------------------- what it shows


def test_numbers_are_the_api_s(explorer, server, reply):
    explorer.open()
    explorer.analyse(TEXT)
    n, summary = len(reply["tokens"]), reply["summary"][0]
    assert explorer.page.locator("#tokens-a [data-cell]").count() == n + 1
    assert explorer.value("cross_entropy-a") == summary["cross_entropy"]
    words = f"perplexity {summary['perplexity']:.{1 if summary['perplexity'] >= 10 else 2}f}, {summary['bits_per_byte']:.3f} bits per byte"
    assert words in explorer.page.locator(".summary").inner_text()
    for cell in (1, 5, n - 1, n):
        position = reply["positions"][cell - 1]
        explorer.choose(cell)
        for name in ("entropy", "varentropy", "logsumexp"):
            assert explorer.value(f"{name}-a") == pytest.approx(position[name][0], rel=WHOLE, abs=WHOLE)
        if position["next"]:
            assert explorer.value("rank-a") == position["next"]["rank"]
            assert explorer.value("surprisal-a") == pytest.approx(-position["next"]["logprob"][0], abs=WHOLE)
        shown = explorer.bars()
        assert [token for token, _ in shown[:20]] == [entry["id"] for entry in position["top"]]
        for (_, logprob), entry in zip(shown, position["top"], strict=False):
            assert logprob == pytest.approx(entry["logprob"][0], abs=WHOLE)
        if position["next"] and position["next"]["rank"] >= 20:
            assert shown[20][0] == position["next"]["id"]
    assert "Paris" in explorer.cell(5).inner_text() and explorer.page.locator("#details-title").inner_text().startswith("What comes next")


def test_hovering_shows_the_streamed_numbers(explorer, reply):
    explorer.open(a=TEXT)
    explorer.cell(5).hover()
    explorer.page.wait_for_selector("#bars")
    position = reply["positions"][4]
    assert explorer.value("surprisal-a") == pytest.approx(-position["next"]["logprob"][0], abs=TOLERANCE)
    assert explorer.value("entropy-a") == pytest.approx(position["entropy"][0], abs=TOLERANCE)
    assert explorer.page.locator("#temperature").is_disabled()
    explorer.page.mouse.move(0, 0)
    explorer.page.wait_for_selector("#bars", state="detached")


def test_temperature_slider_computes_in_the_page(explorer, server):
    explorer.open(a=TEXT)
    explorer.choose(5)
    n_requests = len(explorer.requests)
    temperatures = [0.01, 0.5, 3]
    position = server.distribution(prompt=TEXT, positions=[4], temperatures=temperatures)["results"][0]["positions"][0]
    for i, temperature in enumerate(temperatures):
        explorer.set_temperature(temperature)
        tolerance = WHOLE / min(temperature, 1)
        assert explorer.value("entropy-a") == pytest.approx(position["entropy"][i], abs=tolerance)
        assert explorer.value("logsumexp-a") == pytest.approx(position["logsumexp"][i], rel=1e-6)
        assert explorer.value("surprisal-a") == pytest.approx(-position["next"]["logprob"][i], abs=tolerance)
        for (token, logprob), entry in zip(explorer.bars(), position["top"], strict=True):
            assert token == entry["id"] and logprob == pytest.approx(entry["logprob"][i], abs=tolerance)
        heights = explorer.page.locator("#bars li").evaluate_all("rows => rows.map(row => row.getBoundingClientRect().height)")
        clipped = explorer.page.locator("#bars data").evaluate_all("numbers => numbers.filter(number => number.scrollWidth > number.clientWidth + 1).length")
        assert max(heights) < 24 and clipped == 0, "a number at T = 0.01 has a hundred zeros, and one line"
    assert len(explorer.requests) == n_requests
    explorer.wait("location.hash.includes('T=3')")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("metric", ["surprisal", "rank", "entropy", "top1"])
def test_colours(browser, server, reply, metric, theme):
    read = {
        "surprisal": lambda p: -p["next"]["logprob"][0] if p["next"] else np.nan,
        "rank": lambda p: np.log2(1 + p["next"]["rank"]) if p["next"] else np.nan,
        "entropy": lambda p: p["entropy"][0],
        "top1": lambda p: np.exp(p["top"][0]["logprob"][0]),
    }[metric]
    values = np.array([read(position) for position in reply["positions"]])
    finite = values[~np.isnan(values)]
    reach = 2.5 * finite.std()
    low, high = max(finite.min(), finite.mean() - reach), min(finite.max(), finite.mean() + reach)
    places = np.clip((values - low) / (high - low), 0, 1)
    explorer = Explorer(browser, server.url, color_scheme=theme).open(a=TEXT, by=metric)
    try:
        colours = explorer.colours()
        assert colours[0] is None
        shown = [(place, colour) for place, colour in zip(places, colours[1:], strict=True)]
        assert [np.isnan(place) for place, _ in shown] == [colour is None for _, colour in shown]
        ordered = sorted((pair for pair in shown if pair[1]), key=lambda pair: pair[0])
        lights = [luminance(colour) for _, colour in ordered]
        assert lights == sorted(lights, reverse=theme == "light") and abs(lights[0] - lights[-1]) > 0.3
        ends = {"light": ((255, 253, 246), (96, 32, 8)), "dark": ((26, 30, 38), (255, 234, 92))}[theme]
        assert (ordered[0][1], ordered[-1][1]) == ends
        legend = explorer.page.locator("#legend figcaption").inner_text()
        assert ("≥" in legend) == bool(finite.max() > high) and ("≤" in legend) == bool(finite.min() < low)
        if metric == "surprisal":
            assert f"{finite.mean() / np.log(2):.2f}" in legend
            explorer.page.check("input[value=nats]", force=True)
            assert f"{finite.mean():.2f}" in explorer.page.locator("#legend figcaption").inner_text()
    finally:
        explorer.close()


def test_whitespace_and_fragments_are_visible(explorer, server):
    text = " tab\tand\n\nbreak 世界 \u200b🦜"
    explorer.open(a=text)
    tokens = server.post("/tokenize", {"text": text}).json()["tokens"]
    shown = explorer.page.locator("#tokens-a [data-cell]").all_inner_texts()
    for token, cell in zip(tokens, shown, strict=False):
        raw = bytes(token["bytes"])
        if raw == b"\n\n":
            assert cell == "⏎⏎"
        elif raw.isascii():
            assert cell == raw.decode().replace(" ", "·").replace("\t", "⇥").replace("\n", "⏎")
        elif "\ufffd" in token["text"]:
            assert raw[-1:].hex().upper() in cell or raw[-1] < 0x80
    assert any("E4" in cell for cell in shown) and "\ufffd" not in "".join(shown)
    fragment = next(i for i, token in enumerate(tokens) if token["text"] == "\ufffd" * len(token["text"]))
    explorer.choose(fragment)
    explorer.wait("!document.querySelector('#bars').textContent.includes('\\ufffd')")  # bytes came by /vocab


# -------------------------------------------------------------------------------------------------------- using it


def test_link_restores_the_view(explorer, browser, server):
    explorer.open(a=TEXT, b=OTHER)
    explorer.choose(5, "b")
    explorer.page.check("#numbers")
    explorer.page.check("input[value=entropy]", force=True)
    explorer.set_temperature(0.37)
    explorer.context.grant_permissions(["clipboard-read", "clipboard-write"])
    explorer.page.click("#export-link")
    link = explorer.page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(server.url + "/#") and "Lyon" in link
    second = Explorer(browser, server.url)
    second.page.goto(link)
    second.wait_done()
    second.wait("/logits are here/.test(document.querySelector('.details .source')?.textContent)")
    look = lambda tab: (tab.page.locator("#text-a").input_value(), tab.page.locator("#text-b").input_value(), tab.colours("b"), tab.bars(),  # noqa: E731
                        tab.value("entropy-a"), tab.value("kl-ab"), tab.page.locator("output").inner_text(),
                        tab.page.locator("#tokens-b").inner_text(), tab.page.locator("[aria-selected=true]").get_attribute("id"))  # fmt: skip
    assert look(second) == look(explorer)
    assert look(second)[-1] == "cell-b-5"
    second.close()
    assert "Lyon" not in server.log()


def test_two_texts(explorer, server):
    explorer.open(a=TEXT, b=OTHER, at="a7")
    one, other = (server.distribution(prompt=text)["results"][0] for text in (TEXT, OTHER))
    n = len(one["tokens"])
    assert [token["id"] for token in one["tokens"]][6:] == [token["id"] for token in other["tokens"]][6:] and n == len(other["tokens"])
    explorer.page.wait_for_selector("data[data-name='kl-ab']")
    ids = [[token["id"] for token in result["tokens"]][:7] for result in (one, other)]
    p, q = (full_logprobs(server, prefix) for prefix in ids)
    assert explorer.value("kl-ab") == pytest.approx((np.exp(p) * (p - q)).sum(), rel=1e-5, abs=1e-7)
    assert explorer.value("kl-ba") == pytest.approx((np.exp(q) * (q - p)).sum(), rel=1e-5, abs=1e-7)
    for side, result in (("a", one), ("b", other)):
        assert explorer.value(f"surprisal-{side}") == pytest.approx(-result["positions"][6]["next"]["logprob"][0], abs=WHOLE)
    explorer.page.check("#numbers")
    explorer.page.wait_for_selector("#tokens-b [data-value]")
    shown = explorer.page.locator("#tokens-b [data-cell]").evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    for cell in range(6, n):
        change = (one["positions"][cell - 1]["next"]["logprob"][0] - other["positions"][cell - 1]["next"]["logprob"][0]) / np.log(2)
        assert float(shown[cell].replace("−", "-")) == pytest.approx(change, abs=0.06 if abs(change) >= 10 else 0.0051), cell
    same = explorer.page.locator("#tokens-a .segment:not(.differs)").count(), explorer.page.locator("#tokens-b .segment.differs").count()
    assert same == (2, 1)
    rows = [explorer.cell(8, side).bounding_box() for side in "ab"]
    assert rows[0]["y"] == rows[1]["y"] and rows[0]["x"] < rows[1]["x"]


def test_an_alternative_in_its_place(explorer, server, reply):
    explorer.open(a=TEXT)
    explorer.choose(5)
    target = next(entry for entry in reply["positions"][4]["top"] if entry["text"] == " London")
    explorer.page.click(f"#bars li[data-id='{target['id']}'] .bar")
    explorer.page.wait_for_selector("#tokens-b [data-cell]")
    explorer.wait_done()
    ids = [token["id"] for token in reply["tokens"]]
    ids[5] = target["id"]
    api = server.distribution(prompt=ids)["results"][0]
    assert explorer.page.locator("#text-b").input_value() == TEXT.replace("Paris", "London")
    explorer.choose(13, "b")
    assert explorer.value("surprisal-b") == pytest.approx(-api["positions"][12]["next"]["logprob"][0], abs=WHOLE)
    explorer.cell(5, "b").click()
    explorer.page.fill("#other-token", " Rome")
    explorer.page.press("#other-token", "Enter")
    explorer.wait("document.querySelector('#text-b').value.includes('Rome')")
    explorer.wait_done()
    assert explorer.page.locator("#tokens-b [data-cell='5']").inner_text() == "·Rome"


def test_pinned_tokens(explorer, server):
    tokens = [server.post("/tokenize", {"text": text}).json()["tokens"][0]["id"] for text in (" Paris", " Tokyo")]
    explorer.open(a=TEXT)
    for text in (" Paris", "␣Tokyo"):
        explorer.page.fill("#pin-text", text)
        explorer.page.press("#pin-text", "Enter")
        explorer.wait("n => document.querySelectorAll('.chip').length === n", 1 + (text == "␣Tokyo"))
        explorer.wait_done()
    api = server.distribution(prompt=TEXT, token_ids=tokens)["results"][0]["positions"]
    explorer.choose(5)
    for i, token in enumerate(tokens):
        assert explorer.value(f"pin-{token}-a") == pytest.approx(api[4]["token_ids"][i]["logprob"][0], abs=WHOLE)
    explorer.page.check(f"input[value='pin:{tokens[1]}']", force=True)
    explorer.page.check("#numbers")
    explorer.page.wait_for_selector("[data-value]")
    shown = explorer.page.locator("#tokens-a [data-cell]").evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    best = int(np.argmax([position["token_ids"][1]["logprob"][0] for position in api]))
    assert explorer.colours()[best + 1] == (96, 32, 8)
    assert float(shown[best + 1].split()[0]) == pytest.approx(100 * np.exp(api[best]["token_ids"][1]["logprob"][0]), abs=0.051)
    assert explorer.page.locator("#chart-pins canvas").count() == 1
    explorer.wait("pins => location.hash.includes(pins)", f"pins={tokens[0]}.{tokens[1]}")
    explorer.page.locator(".chip").first.click()
    assert explorer.page.locator(".chip").all_inner_texts()[0].startswith("·Tokyo")


def test_sweep(explorer, server):
    explorer.open(a=TEXT)
    explorer.page.click("#sweep")
    words = explorer.page.locator("#sweep-words").inner_text()
    temperatures = [0.01, 0.05] + [i / 10 for i in range(1, 31)]
    summary = server.distribution(prompt=TEXT, temperatures=temperatures, top_n=0)["results"][0]["summary"]
    for temperature, row in zip(temperatures, summary, strict=True):
        for name in ("cross_entropy", "mean_entropy"):
            assert explorer.value(f"{name}-a-{temperature:g}") == row[name]
    best = min(summary, key=lambda row: row["cross_entropy"])
    assert f"lowest at T = {best['temperature']:g}: {best['cross_entropy'] / np.log(2):.2f} bits" in words
    assert explorer.page.locator("#chart-sweep canvas").count() == 1


def test_exports(explorer, server, tmp_path):
    explorer.open(a=TEXT, pins="7042")
    api = server.distribution(prompt=TEXT, token_ids=[7042])

    def download(button):
        with explorer.page.expect_download() as started:
            explorer.page.click(button)
        return pathlib.Path(started.value.path()).read_bytes(), started.value.suggested_filename

    content, name = download("#export-csv")
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert name == "logitd.csv" and [int(row["token_id"]) for row in rows] == [token["id"] for token in api["results"][0]["tokens"]]
    for row, position in zip(rows[1:], api["results"][0]["positions"], strict=False):
        assert float(row["surprisal_nats"]) == -position["next"]["logprob"][0] and int(row["rank"]) == position["next"]["rank"]
        assert float(row["entropy_nats"]) == position["entropy"][0] and float(row["logprob_of_7042"]) == position["token_ids"][0]["logprob"][0]
        assert bytes.fromhex(row["bytes_hex"]).decode() == row["token"]

    content, name = download("#export-json")
    exported = json.loads(content)
    varying = {"id", "created", "timing_ms"}
    assert name == "logitd.json" and exported.keys() == api.keys()
    for key in api.keys() - varying:
        assert exported[key] == api[key], key

    content, name = download("#export-safetensors")
    arrays = safetensors.numpy.load(content)
    assert name == "logitd.safetensors" and arrays["prompt.0.entropy"][4, 0] == np.float32(api["results"][0]["positions"][4]["entropy"][0])
    assert arrays["prompt.0.listed_logprob"].shape == (len(rows), 1, 1)

    explorer.context.grant_permissions(["clipboard-read", "clipboard-write"])
    explorer.page.click("#export-curl")
    line = explorer.page.evaluate("navigator.clipboard.readText()")
    assert line == explorer.page.locator("#curl").inner_text()
    answer = json.loads(subprocess.run(["sh", "-c", line], capture_output=True, timeout=600, check=True).stdout)
    assert answer["results"] == api["results"]


def test_keyboard(explorer, server, reply):
    explorer.open()
    page = explorer.page
    page.keyboard.press("Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.id") == "text-a":
            break
        page.keyboard.press("Tab")
    page.keyboard.type(TEXT)
    page.keyboard.press("Control+Enter")
    explorer.wait_done()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.role") == "option":
            break
    where = lambda: page.evaluate("document.activeElement.id")  # noqa: E731
    assert where() == "cell-a-0" and page.locator("#tokens-a [tabindex='0']").count() == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert where() == "cell-a-2"
    page.keyboard.press("End")
    assert where() == f"cell-a-{len(reply['tokens'])}"
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    explorer.wait("document.querySelector('#cell-a-5').getAttribute('aria-label')")
    label = explorer.cell(5).get_attribute("aria-label")
    bits = -reply["positions"][4]["next"]["logprob"][0] / np.log(2)
    assert label == f"space Paris, surprisal {bits:.3f} bits, rank 0"
    assert page.locator("#tokens-a [tabindex='0']").count() == 1 and page.locator("[aria-selected=true]").get_attribute("id") == "cell-a-5"
    page.set_viewport_size({"width": 420, "height": 900})
    page.keyboard.press("ArrowDown")
    assert explorer.cell(5).bounding_box()["y"] < page.locator(f"#{where()}").bounding_box()["y"]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "bar"
    page.keyboard.press("Escape")
    assert where() == "cell-a-5"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tokens-b [data-cell]")
    explorer.wait_done()


# ------------------------------------------------------------------------------------------------ when things go wrong


def long_text(server, n_tokens):
    text = (pathlib.Path(__file__).parent / "fixtures" / "texts" / "english.txt").read_text()
    tokens = server.post("/tokenize", {"text": text * 3}).json()["tokens"][:n_tokens]
    return b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="ignore")


def test_streams_cancels_and_stays_fluid_with_2000_tokens(explorer, server):
    """Colours come before the end; cancelling reaches the server; afterwards a pointer's move touches a few elements."""
    text = long_text(server, 2000)
    page = explorer.open().page
    page.fill("#text-a", text)
    canceled = server.get("/health").json()["jobs"]["canceled"]
    page.click("#run")
    explorer.wait("document.querySelectorAll('#tokens-a [style*=background]').length > 50")
    assert page.locator("#cancel").count() == 1
    done, total = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+", page.locator(".progress span").inner_text()))
    assert 0 < done < total and total > 1900
    page.click("#cancel")
    page.wait_for_selector("#cancel", state="detached")
    coloured = page.locator("#tokens-a [style*=background]").count()
    assert 50 < coloured < total
    explorer.wait("canceled => fetch('/health').then(reply => reply.json()).then(({jobs}) => jobs.canceled > canceled && jobs.held === 0)", canceled)

    page.click("#run")
    explorer.wait_done()
    assert page.locator("#tokens-a [style*=background]").count() == total - 1
    page.evaluate("""() => {
        window.changed = 0; window.built = 0; window.slowest = 0
        new MutationObserver(changes => { for (const change of changes) { window.changed++; window.built += change.addedNodes.length } })
            .observe(document.querySelector('#tokens-a'), {subtree: true, childList: true, attributes: true})
    }""")
    for cell in (100, 101, 900, 1500):
        explorer.cell(cell).hover()
        explorer.wait("cell => document.querySelector('#tokens-a .ring.marked')?.dataset.of === `cell-a-${cell}`", cell)
    assert page.evaluate("window.built") == 0 and page.evaluate("window.changed") < 60
    explorer.cell(1500).click()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "cell-a-1510"
    assert page.evaluate("window.built") == 0 and page.evaluate("window.changed") < 300


def test_nothing_jumps_when_the_same_tokens_are_computed_again(explorer, server):
    """A pin, or another number of entries: place, focus and cells stay while the server computes."""
    page = explorer.open(a=long_text(server, 700), at="a600").page
    explorer.wait("/logits are here/.test(document.querySelector('.details .source')?.textContent)")
    explorer.cell(600).scroll_into_view_if_needed()
    page.evaluate("""() => {
        window.built = 0; window.least = 1e9; const text = document.querySelector('#tokens-a')
        new MutationObserver(changes => { for (const change of changes) window.built += change.addedNodes.length }).observe(text, {subtree: true, childList: true})
        const look = () => { window.least = Math.min(window.least, document.querySelectorAll('#tokens-a [style*=background]').length); requestAnimationFrame(look) }
        look()
    }""")
    place = page.evaluate("scrollY")
    page.locator("#bars .pin").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip")
    explorer.wait_done()
    assert place > 300 and page.evaluate("[scrollY, window.built, window.least]") == [place, 0, 700 - 1]
    assert page.evaluate("document.activeElement.className") == "pin"
    page.wait_for_selector("#pinned data[value]:not([value=''])")
    page.check("input[value^='pin:']", force=True)
    explorer.wait("document.querySelectorAll('#tokens-a [style*=background]').length === 700")
    # Another text: the old tokens stay until the new ones are here, also when none come.
    page.fill("#text-a", "one two " * 9000)
    page.wait_for_selector(".changed")
    page.click("#run")
    page.wait_for_selector(".problem")
    assert page.locator("#tokens-a [data-cell]").count() == 701 and page.locator(".changed").count() == 1
    explorer.problems = [problem for problem in explorer.problems if "status of 400" not in problem]
    explorer.analyse("three four")
    assert page.locator("#tokens-a [data-cell]").count() == 3 and page.locator(".changed").count() == 0


def test_a_narrow_page_keeps_the_distribution_in_sight(browser, server):
    """On a phone, or at 200 %, it is below the text: a token of a long text and its distribution are seen together."""
    explorer = Explorer(browser, server.url, viewport={"width": 700, "height": 450}).open(a=long_text(server, 600))
    page = explorer.page
    explorer.cell(250).click()
    explorer.page.keyboard.press("ArrowRight")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "End", "ArrowUp", "Home"):
        page.keyboard.press(key)
        page.wait_for_selector("#tokens-a .ring.chosen")
        explorer.wait("document.querySelector('#tokens-a .ring.chosen').dataset.of === document.activeElement.id")
        cell, panel = (page.locator(selector).bounding_box() for selector in ("[role=option]:focus", ".details"))
        assert cell["y"] >= 0 and cell["y"] + cell["height"] <= panel["y"] + 1, key
        assert panel["y"] + 60 < 450, key
    assert page.evaluate("document.documentElement.scrollWidth") == 700
    explorer.close()


def test_a_pin_removed_from_a_changed_text(explorer, server):
    """What was computed belongs to the text it was computed of."""
    explorer.open(a=TEXT, pins="7042")
    explorer.page.fill("#text-a", "Something else")
    explorer.page.locator(".chip").click()
    explorer.page.click("#run")
    explorer.wait("document.querySelector('#tokens-a').textContent.startsWith('Something')")
    explorer.wait_done()
    explorer.page.fill("#text-a", TEXT)
    explorer.page.click("#sweep")
    explorer.page.wait_for_selector("#sweep-words")
    api = server.distribution(prompt="Something else", temperatures=[1], top_n=0)["results"][0]["summary"][0]
    assert explorer.value("cross_entropy-a-1") == api["cross_entropy"]  # of the tokens that are shown


def test_a_link_from_another_vocabulary(explorer):
    explorer.page.goto(explorer.url + "/#a=Hello+world&b=Hello+moon&b-ids=504.3575&pins=999999.3&by=pin:3&vocabulary=262144")
    explorer.page.wait_for_selector(".problem")
    assert explorer.alert() == "The link is of a model with another vocabulary; its pinned tokens and token ids were left out."
    assert explorer.page.locator("#tokens-b [data-cell]").all_inner_texts() == ["Hello", "·moon", "next?"]
    assert explorer.page.locator(".chip").count() == 0 and explorer.page.locator("input[value=surprisal]").is_checked()
    explorer.open(a=TEXT, by="pin:5")
    assert explorer.page.locator("input[value=surprisal]").is_checked()


def test_lines_of_code_are_lines(explorer):
    """Tokens such as a line break with the spaces of an indentation begin a line, and no letter lies under the ring."""
    explorer.open(a="if x:\n    if y:\n\n        return z\n")
    tokens = explorer.page.locator("#tokens-a [data-cell]").all_inner_texts()
    assert any(text.startswith("⏎") and text.endswith("·") for text in tokens)
    tops = explorer.page.locator("#tokens-a [data-cell]").evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().top)")
    lines = ["".join(text for text, at in zip(tokens, tops, strict=True) if at == top).replace("⏎", "").replace("next?", "") for top in sorted(set(tops))]
    assert [line.strip("·") for line in lines if line.strip("·")] == ["if·x:", "if·y:", "return·z"]
    cell = next(i for i, text in enumerate(tokens) if text == "·y")
    explorer.choose(cell)
    box, ring = explorer.cell(cell).bounding_box(), explorer.page.locator("#tokens-a .ring.chosen")
    assert ring.bounding_box() == pytest.approx(box, abs=0.51) and ring.evaluate("ring => getComputedStyle(ring).outline").startswith("rgb")
    explorer.page.set_viewport_size({"width": 700, "height": 900})
    explorer.page.check("#numbers")
    explorer.wait("cell => Math.abs(document.querySelector('#tokens-a .ring.chosen').getBoundingClientRect().y - document.querySelector(cell).getBoundingClientRect().y) < 0.6",
                  f"#cell-a-{cell}")  # fmt: skip


def answer_with(page, **reply):
    page.route("**/distribution", lambda route: route.fulfill(**reply))


def test_errors_in_words(explorer, server, axe):
    explorer.open()
    text = "a b c d " * 3000
    explorer.page.fill("#text-a", text)
    explorer.page.click("#run")
    explorer.page.wait_for_selector(".problem")
    error = server.post("/distribution", {"prompt": text}).json()["error"]
    assert explorer.alert().rstrip(".").lower() == error["message"].lower()
    assert explorer.page.locator("#text-a").get_attribute("aria-invalid") == "true"
    assert audit(explorer.page, axe) == []
    explorer.problems = [problem for problem in explorer.problems if "status of 400" not in problem]
    explorer.analyse("a")
    assert explorer.page.locator(".problem").count() == 0
    answer_with(explorer.page, status=503, body='{"error":{"message":"too many","param":null}}')
    explorer.page.fill("#text-a", "b")
    explorer.page.click("#run")
    explorer.page.wait_for_selector(".problem")
    assert explorer.alert() == "Too many (it is busy; try again in a moment)"
    explorer.page.unroute("**/distribution")
    lines = server.post("/distribution", {"prompt": "b c", "format": "ndjson"}).body.splitlines(keepends=True)
    for body, words in ((b"".join(lines[:3]), "The connection broke off before the reply was whole."),
                        (b"".join(lines[:3]) + b'{"error":{"message":"the device failed","param":null}}\n', "The device failed.")):  # fmt: skip
        answer_with(explorer.page, body=body)
        explorer.page.click("#run")
        explorer.wait("words => document.querySelector('.problem p')?.textContent === words", words)
        explorer.page.unroute("**/distribution")
    explorer.problems = [problem for problem in explorer.problems if "status of 503" not in problem]


def test_a_server_that_is_gone(browser, start_server, tmp_path):
    server = start_server(arch_models.write("llama_mha", tmp_path / "tiny.gguf"))
    explorer = Explorer(browser, server.url).open()
    explorer.page.wait_for_selector("#model")
    server.stop()
    explorer.page.fill("#text-a", "a")
    explorer.page.click("#run")
    explorer.page.wait_for_selector(".problem")
    assert explorer.alert() == "The server does not answer; is it still running?"
    explorer.problems.clear()
    explorer.close()


def test_logits_that_did_not_come_can_be_asked_for_again(explorer):
    explorer.open(a=TEXT)
    answer_with(explorer.page, status=503, body='{"error":{"message":"too many","param":null}}')
    explorer.cell(5).click()
    explorer.page.wait_for_selector("#logits-again")
    assert explorer.page.locator(".problem").count() == 1
    explorer.page.unroute("**/distribution")
    explorer.page.click("#logits-again")
    explorer.wait("/logits are here/.test(document.querySelector('.details .source')?.textContent)")
    explorer.wait("!document.querySelector('.problem')")
    explorer.problems = [problem for problem in explorer.problems if "status of 503" not in problem]


def test_key(browser, start_server, tmp_path):
    key = "a-key-of-sixteen-and-more"
    (tmp_path / "keys.txt").write_text(f"alice {key}\n")
    server = start_server(arch_models.write("llama_mha", tmp_path / "tiny.gguf"), "--api-keys", tmp_path / "keys.txt")
    explorer = Explorer(browser, server.url).open()
    page = explorer.page
    page.wait_for_selector("dialog[open]")
    assert page.locator("#model").count() == 0
    page.fill("dialog input", "wrong-key-of-sixteen")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog [role=alert]")
    assert "not one of this server" in page.locator("dialog [role=alert]").inner_text()
    page.fill("dialog input", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#model")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    explorer.analyse("abc")
    page.reload()
    explorer.wait_done()
    explorer.choose(1)
    page.click("#export-curl")
    assert "$LOGITD_KEY" in page.locator("#curl").inner_text() and key not in page.locator("#curl").inner_text()
    assert key not in page.url
    explorer.problems = [problem for problem in explorer.problems if "status of 401" not in problem]
    explorer.close()


def test_forced_colours_keep_the_data_s(browser, server):
    explorer = Explorer(browser, server.url, forced_colors="active").open(a=TEXT, at="a5")
    explorer.page.wait_for_selector("#bars")
    read = "element => getComputedStyle(element).backgroundColor"
    cells = explorer.page.locator("#tokens-a [data-cell]").evaluate_all(f"cells => cells.map({read})")
    assert len(set(cells)) > 5
    assert explorer.page.locator("#bars .fill").first.evaluate(read) != explorer.page.locator("body").evaluate(read)
    chosen, other = (explorer.page.locator(f"input[value={value}] + span").evaluate(read) for value in ("surprisal", "rank"))
    assert chosen != other
    explorer.close()


# ------------------------------------------------------------------------------------------------------ the API page


def test_docs_have_every_route_field_and_example(explorer, server):
    document = server.get("/openapi.json").json()
    page = explorer.open("/docs").page
    words = lambda selector: " ".join(page.locator(selector).first.text_content().split())  # noqa: E731
    for path, item in document["paths"].items():
        for method, operation in item.items():
            section = f"#{operation['operationId']}"
            assert words(f"{section} h2") == f"{method.upper()} {path}" and operation["summary"] in words(section)
            assert set(page.locator(f"{section} .errors th").all_inner_texts()) == operation["responses"].keys() - {"200"}
            for parameter in operation.get("parameters", []):
                assert parameter["name"] in words(section) and parameter["description"] in words(section)
            examples = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies = [example["value"] for example in examples.get("examples", {}).values()] + [examples[key] for key in ("example",) if key in examples]
            lines = [text for text in page.locator(f"{section} > pre").all_inner_texts() if text.startswith("curl")]
            assert len(lines) == max(1, len(bodies)) and all(server.url + path in line for line in lines)
            for line, body in zip(lines, bodies, strict=False):
                assert json.loads(line.split("-d '")[1].removesuffix("'")) == body

    def fields(schema, prefix=""):
        for inner in [schema, schema.get("items", {}), *schema.get("oneOf", [])]:
            for name, field in inner.get("properties", {}).items():
                yield prefix + name, field["description"]
                yield from fields(field, prefix + name + ("[]." if field.get("items", {}).get("properties") else "."))

    for name, schema in document["components"]["schemas"].items():
        rows = page.locator(f"#schema-{name} tbody tr").evaluate_all("rows => rows.map(row => [row.querySelector('code').textContent, row.cells[2].textContent])")
        assert [tuple(row) for row in rows] == list(fields(schema)), name
    for status in document["components"]["responses"]:
        assert status.removeprefix("E") in page.locator("#errors tbody th").all_inner_texts()
    page.click("nav a:has-text('Position') >> nth=0")
    assert explorer.requests == [server.url + "/docs"]
    section = words("#distribution")
    line = page.locator("#distribution > pre").first.inner_text()
    answer = json.loads(subprocess.run(["sh", "-c", line], capture_output=True, timeout=600, check=True).stdout)
    assert answer["object"] == "distribution" and "prompt.i.logprob" in section


# ------------------------------------------------------------------------------------------------------ accessibility


@pytest.fixture(scope="module")
def axe(request):
    build = pathlib.Path(request.config.getoption("--build"))
    return (build / "web" / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def audit(page, axe):
    page.evaluate(axe)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [(v["id"], v["impact"], [node["html"][:160] for node in v["nodes"]][:3]) for v in result["violations"] if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe(browser, server, axe, theme):
    explorer = Explorer(browser, server.url, color_scheme=theme)
    page = explorer.open().page
    page.wait_for_selector("#model")
    assert audit(page, axe) == []
    explorer.open(a=TEXT, pins="7042", numbers="1", at="a5")
    page.wait_for_selector("#pinned")
    page.click("#sweep")
    page.wait_for_selector("#sweep-words")
    page.click("summary")
    page.click("#export-curl")
    assert audit(page, axe) == []
    explorer.open(a=TEXT, b=OTHER, at="b6", by="rank")
    page.wait_for_selector("data[data-name='kl-ab']")
    assert audit(page, axe) == []
    page.evaluate("document.querySelector('dialog').showModal()")
    assert audit(page, axe) == []
    explorer.open("/docs")
    assert audit(page, axe) == []
    explorer.close()
