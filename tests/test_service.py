"""logitd as a service of systemd: the unit in docker/systemd as systemd-analyze reads it, and what the server tells its
manager (sd_notify). The sandbox itself needs a booted systemd, so it was tried by hand (docker/README.md)."""

import pathlib
import re
import shutil
import signal
import socket
import subprocess

import pytest
from serving import Server

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNIT = ROOT / "docker" / "systemd" / "logitd.service"
EXPOSURE_MAX = 1.2  # systemd-analyze's sum for the unit is 1.1, of 10: it serves the network of its machine


@pytest.fixture
def unit(tmp_path):
    """The unit as a folder of units of its own, its program one that is there."""
    text = UNIT.read_text()
    assert text.count("/usr/local/bin/logitd ") == 1
    shutil.copytree(UNIT.parent, tmp_path / "units")
    (tmp_path / "units" / UNIT.name).write_text(text.replace("/usr/local/bin/logitd ", f"{shutil.which('true')} "))
    return tmp_path / "units" / UNIT.name


def analyze(*args):
    return subprocess.run(["systemd-analyze", *map(str, args)], capture_output=True, text=True, timeout=600, check=False)


def verify(unit):
    """What systemd has to say of this unit; of others on the machine nothing."""
    done = analyze("--man=no", "--recursive-errors=no", "verify", unit)
    return done.returncode, [line for line in done.stderr.splitlines() if unit.name in line or str(unit.parent) in line]


def exposure(unit, *args):
    done = analyze("security", "--offline=true", "--no-pager", *args, unit)
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[1]), done.returncode


def test_the_unit_is_one_that_systemd_understands(unit):
    assert verify(unit) == (0, [])
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in verify(unit)[1][0]


def test_the_unit_is_a_sandbox(unit):
    level, status = exposure(unit, f"--threshold={EXPOSURE_MAX * 10:.0f}")
    assert level <= EXPOSURE_MAX and status == 0
    unit.write_text(unit.read_text().replace("PrivateDevices=yes\n", "").replace("SystemCallFilter=@system-service\n", ""))
    assert exposure(unit)[0] > EXPOSURE_MAX


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(logitd, tiny, tmp_path, monkeypatch, abstract):
    """READY=1 once it listens, nothing at SIGHUP, STOPPING=1 when it drains."""
    name = f"\0logitd-test-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(600)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        with Server(logitd, tiny) as server:
            assert manager.recv(100) == b"READY=1"
            server.process.send_signal(signal.SIGHUP)
            assert server.get("/health?probe=ready").status == 200
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket", "/" + "x" * 200])
def test_a_manager_that_cannot_be_told_is_no_reason_to_fail(logitd, tiny, monkeypatch, name):
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with Server(logitd, tiny) as server:
        assert server.get("/health").status == 200
