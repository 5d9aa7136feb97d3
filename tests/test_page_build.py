"""web/page.cmake where the pages cannot be made: the build goes on, says why, and tries again the next time."""

import pathlib
import subprocess

import pytest

WEB = pathlib.Path(__file__).resolve().parent.parent / "web"
PAGES = ["docs.csp", "docs.html", "explorer.csp", "explorer.html"]


def make(folder, *options, **env):
    command = ["cmake", f"-DWEB={WEB}", f"-DBIN={folder}", f"-DOPENAPI={WEB.parent / 'src' / 'openapi.json'}", *options, "-P", WEB / "page.cmake"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=env or None)


def check_left_out(folder, done, why):
    assert done.returncode == 0, done.stderr
    assert f"logitd: the pages at / and /docs are left out: {why}" in done.stderr
    assert (folder / "left_out").read_text() == why
    assert sorted(path.name for path in (folder / "pages").iterdir()) == PAGES  # no `made`: the next build tries again
    for name in ("explorer", "docs"):
        html = (folder / "pages" / f"{name}.html").read_text()
        assert f"left out of this build: {why}." in html and "<title>logitd</title>" in html and "./dev build" in html
        assert (folder / "pages" / f"{name}.csp").read_text() == "default-src 'none'; frame-ancestors 'none'"


def test_without_node(tmp_path):
    check_left_out(tmp_path, make(tmp_path, "-DNODE=NODE-NOTFOUND", "-DWHY=there is no Node"), "there is no Node")


@pytest.fixture
def no_registry(tmp_path):
    """A PATH with a node and an npm that fails as without a network."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("node", "exit 0"), ("npm", "echo npm error network >&2; exit 1")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def test_without_the_registry(tmp_path, no_registry):
    done = make(tmp_path / "web", f"-DNODE={no_registry / 'node'}", "-DWHY=", PATH=f"{no_registry}:/usr/bin:/bin")
    assert "npm error network" in done.stderr
    check_left_out(tmp_path / "web", done, "npm could not install what they are made with (is there a network?); ./dev build tries again")
    assert not (tmp_path / "web" / ".installed").exists()


def test_checking_without_node_fails(tmp_path):
    done = make(tmp_path, "-DNODE=NODE-NOTFOUND", "-DWHY=there is no Node", "-DCHECK=ON")
    assert done.returncode != 0 and "the pages cannot be checked: there is no Node" in done.stderr


def test_a_mistake_in_the_sources_is_an_error(tmp_path, no_registry):
    (no_registry / "npm").write_text("#!/bin/sh\nexit 0\n")
    (no_registry / "node").write_text("#!/bin/sh\nexit 1\n")
    done = make(tmp_path / "web", f"-DNODE={no_registry / 'node'}", "-DWHY=", PATH=f"{no_registry}:/usr/bin:/bin")
    assert done.returncode != 0 and "build.mjs" in done.stderr and not (tmp_path / "web" / "left_out").exists()
