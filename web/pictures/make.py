#!/usr/bin/env python3
"""Makes the README's pictures of the page, beside this file: a server on SmolLM2, Chromium, pngquant.

    ~/.cache/logitd/venv/bin/python web/pictures/make.py      after ./dev test; needs apt-get install pngquant fonts-inter fonts-jetbrains-mono
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browsing import Explorer, chromium  # noqa: E402  (after the path)
from serving import Server  # noqa: E402

FACTS = "The capital of France is Paris, and the capital of Japan is Tokyo. The capital of Australia is Sydney, or so many people think; it is Canberra."
FIRST = "Q: What is the capital of Australia?\nA: The capital of Australia is Sydney. It lies on the coast. So, once more: the capital of Australia is"
SECOND = "Q: What is the capital of Australia?\nA: The capital of Australia is Sydney. Actually, I was wrong: it is Canberra. So, once more: the capital of Australia is"


def shoot(browser, url, name, theme, height, view, prepare):
    explorer = Explorer(browser, url, color_scheme=theme, viewport={"width": 1240, "height": height}).open(**view)
    explorer.wait("/logits are here/.test(document.querySelector('.details .source')?.textContent)")
    prepare(explorer)
    explorer.page.mouse.move(0, 0)
    explorer.page.wait_for_timeout(300)  # of transitions
    path = HERE / name
    path.write_bytes(explorer.page.screenshot())
    subprocess.run(["pngquant", "--force", "--output", path, "--speed", "1", "--strip", "128", path], check=True)
    print(f"{path}: {path.stat().st_size} bytes")
    explorer.close()


def sweep(explorer):
    explorer.page.click("#sweep")
    explorer.page.wait_for_selector("#sweep-words")


def main():
    model = subprocess.run([ROOT / "dev", "model", "smollm2"], capture_output=True, text=True, check=True).stdout.strip()
    with Server(ROOT / "build" / "logitd", model) as server, chromium() as browser:
        shoot(browser, server.url, "page.png", "light", 872, {"a": FACTS, "at": "a20", "T": 1}, sweep)
        shoot(browser, server.url, "compare.png", "dark", 740, {"a": FIRST, "b": SECOND, "at": "b39", "top": 10},
              lambda explorer: explorer.page.wait_for_selector("data[data-name='kl-ab']"))  # fmt: skip


if __name__ == "__main__":
    main()
