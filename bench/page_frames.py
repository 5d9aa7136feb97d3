#!/usr/bin/env python3
"""How fluid the page at / is: frame times and script of a few interactions, in Chromium without a GPU.

    ~/.cache/logitd/venv/bin/python bench/page_frames.py [MODEL.gguf]      after ./dev test; default: SmolLM2

A row an interaction: the times between frames (requestAnimationFrame), and what the page's script took of a step in CPU
time of its thread, by Chromium's own trace, so that others on the machine count little. Painting without a GPU is the
browser's, and in the frame times alone.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browsing import Explorer, chromium  # noqa: E402  (after the path)
from serving import Server  # noqa: E402

N_STEPS = 90
N_TOKENS = 4000
CATEGORIES = ["devtools.timeline", "toplevel", "v8.execute"]
SCRIPT = {"FunctionCall", "RunMicrotasks", "FireAnimationFrame", "TimerFire"}
LAID_OUT = {"UpdateLayoutTree", "Layout"}  # also where a script forces it
COUNT_FRAMES = """() => {
    window.frames_ms = []
    let last = performance.now()
    const frame = now => { window.frames_ms.push(now - last); last = now; window.counting = requestAnimationFrame(frame) }
    window.counting = requestAnimationFrame(frame)
}"""


def script_ms(trace):
    """CPU time of scripts in the renderer's main thread; layout that they force is not theirs."""
    events = json.loads(trace)["traceEvents"]
    threads = {(e["pid"], e["tid"]) for e in events if e.get("name") == "thread_name" and e["args"]["name"] == "CrRendererMain"}
    total = 0
    for thread in threads:
        stack = []
        whole = [e for e in events if (e["pid"], e["tid"]) == thread and e.get("ph") == "X" and e["name"] in SCRIPT | LAID_OUT]
        for event in sorted(whole, key=lambda e: (e["ts"], -e["dur"])):
            while stack and stack[-1]["ts"] + stack[-1]["dur"] <= event["ts"]:
                stack.pop()
            in_script = any(e["name"] in SCRIPT for e in stack)
            in_layout = any(e["name"] in LAID_OUT for e in stack)
            if event["name"] in SCRIPT and not in_script:
                total += event.get("tdur", 0)
            elif event["name"] in LAID_OUT and in_script and not in_layout:
                total -= event.get("tdur", 0)
            stack.append(event)
    return total / 1000


def measure(browser, explorer, name, step):
    """Does `step` N_STEPS times at a pace of about 30 a second, and prints the row."""
    explorer.page.wait_for_timeout(1000)
    browser.start_tracing(page=explorer.page, categories=CATEGORIES)
    explorer.page.evaluate(COUNT_FRAMES)
    for i in range(N_STEPS):
        step(i)
        explorer.page.wait_for_timeout(25)
    explorer.page.evaluate("cancelAnimationFrame(window.counting)")
    script = script_ms(browser.stop_tracing()) / N_STEPS
    frames = explorer.page.evaluate("window.frames_ms")
    p95 = statistics.quantiles(frames, n=20)[-1]
    print(f"{name:40} {statistics.median(frames):9.1f} {p95:9.1f} {script:9.1f}", flush=True)


def drag(explorer):
    """Steps of the slider's thumb, to and fro."""
    box = explorer.page.locator("#temperature").bounding_box()
    at = lambda share: (box["x"] + box["width"] * share, box["y"] + box["height"] / 2)  # noqa: E731
    explorer.page.mouse.move(*at(1 / 3))
    explorer.page.mouse.down()
    return lambda i: explorer.page.mouse.move(*at(0.02 + 0.96 * abs(2 * i / N_STEPS - 1)))


def long_text(server):
    text = (ROOT / "tests" / "fixtures" / "texts" / "english.txt").read_text(encoding="utf-8")
    tokens = server.post("/tokenize", {"text": text * 5}).json()["tokens"][:N_TOKENS]
    return b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="ignore")


def main():
    default = [ROOT / "dev", "model", "smollm2"]
    model = sys.argv[1] if len(sys.argv) > 1 else subprocess.run(default, capture_output=True, text=True, check=True).stdout.strip()
    print(f"{'':40} {'frame, ms':>9} {'p95':>9} {'script a step':>9}")
    with Server(ROOT / "build" / "logitd", model) as server, chromium() as browser:
        explorer, text = Explorer(browser, server.url), long_text(server)
        explorer.open(a=text)
        explorer.choose(30)
        step = drag(explorer)
        measure(browser, explorer, f"slider, {N_TOKENS:,} tokens", step)
        explorer.page.mouse.up()
        cells = [explorer.cell(i).bounding_box() for i in range(31, 31 + N_STEPS)]
        measure(browser, explorer, f"pointer over {N_TOKENS:,} tokens",
                lambda i: explorer.page.mouse.move(cells[i]["x"] + cells[i]["width"] / 2, cells[i]["y"] + cells[i]["height"] / 2))  # fmt: skip
        explorer.cell(N_TOKENS // 2).click()
        measure(browser, explorer, f"arrow keys along {N_TOKENS:,} tokens", lambda i: explorer.page.keyboard.press("ArrowRight"))
        explorer.open(a=text[:400], b=text[:200] + "Actually, " + text[200:400], at="b60", pins="260.282.284.314")
        explorer.page.wait_for_selector("data[data-name='kl-ab']")
        step = drag(explorer)
        measure(browser, explorer, "slider, two texts and four pins", step)
        explorer.page.mouse.up()
        explorer.close()


if __name__ == "__main__":
    main()
