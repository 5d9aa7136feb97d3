"""Driving the page at / in Debian's Chromium: starting it, opening views, reading what the page shows.

Nothing of the browser reaches the network: a request to any other host than the server's fails the test.
"""

import contextlib
import shutil
import time
import urllib.parse

from playwright.sync_api import sync_playwright

FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --force-color-profile=srgb").split()  # fmt: skip
WAIT_MS = 600_000  # for a forward pass on a shared machine


@contextlib.contextmanager
def chromium():
    """A browser; ended with the block, and with it Playwright's event loop, which would be in other tests' way."""
    path = shutil.which("chromium")
    assert path, "Chromium is not installed; ./dev test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Explorer:
    """The page in a tab of its own. `problems`: what went wrong in it, which must stay empty."""

    def __init__(self, browser, url, **context):
        self.url, self.problems, self.requests = url, [], []
        context.setdefault("viewport", {"width": 1400, "height": 900})
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.on("request", self._on_request)

    def _on_request(self, request):
        self.requests.append(request.url)
        if not request.url.startswith((self.url + "/", "data:", "blob:")):
            self.problems.append(f"a request to {request.url}")

    def open(self, path="/", **view):
        """`view`: parameters of the link's fragment."""
        fragment = urllib.parse.urlencode({name.replace("_", "-"): value for name, value in view.items()}, quote_via=urllib.parse.quote)
        self.page.goto("about:blank")
        self.page.goto(self.url + path + (f"#{fragment}" if fragment else ""))
        if fragment:
            self.wait_done()
        return self

    def wait(self, expression, arg=None):
        """Until it is true in the page. Playwright's own wait_for_function evaluates within the page, which its policy forbids."""
        end = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(expression, arg):
            assert time.monotonic() < end, f"never true: {expression} {arg!r}; the page shows {self.page.inner_text('body')[:2000]}"
            self.page.wait_for_timeout(30)

    def wait_done(self):
        """Until nothing is being computed, the last thing said is that it is done, and the cells have been drawn."""
        self.wait("document.querySelector('#said').textContent === 'Done.' && !document.querySelector('#cancel')")
        self.page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def analyse(self, text, side="a"):
        self.page.fill(f"#text-{side}", text)
        self.page.click("#run")
        self.wait_done()

    def cell(self, i, side="a"):
        return self.page.locator(f"#cell-{side}-{i}")

    def choose(self, i, side="a"):
        """Chooses a cell and waits for its whole distribution."""
        self.cell(i, side).click()
        self.page.mouse.move(0, 0)
        self.wait("/logits are here/.test(document.querySelector('.details .source')?.textContent)")

    def value(self, name):
        """The exact number behind one that is shown."""
        return float(self.page.locator(f"data[data-name='{name}']").first.get_attribute("value"))

    def bars(self):
        """(id, log-probability) of each."""
        read = "items => items.map(item => [Number(item.dataset.id), Number(item.querySelector('data').value)])"
        return self.page.locator("#bars li").evaluate_all(read)

    def set_temperature(self, value):
        self.page.locator("#temperature").evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change')) }",
            str(value),
        )
        self.wait("value => document.querySelector('output').textContent === 'T = ' + value.toFixed(2)", value)

    def colours(self, side="a"):
        """Background of each cell: (r, g, b), or None where it has no colour."""
        read = "cells => cells.map(cell => cell.style.backgroundColor)"
        texts = self.page.locator(f"#tokens-{side} [data-cell]").evaluate_all(read)
        return [tuple(map(int, text[4:-1].replace(",", " ").split())) if text else None for text in texts]

    def alert(self):
        return self.page.locator(".problem p").inner_text()

    def close(self):
        self.context.close()
        assert not self.problems, self.problems
