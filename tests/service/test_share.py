"""What is installed for scripts, and the sample services of the demo, run for real."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from pathlib import Path

import pytest

from koi.core import status
from koi.service.catalog import scan
from tests.proc.waiting import until


@pytest.fixture
def share(repository: Path) -> Path:
    """The folder koi/share."""
    return repository / "koi" / "share"


def run(script: Path, folder: Path, node: str) -> int:
    environment = {**os.environ, "KOI_DEMO_DIR": str(folder), "KOI_NODE": node, "KOI_EPOCH": "3"}
    return subprocess.run([str(script)], env=environment, capture_output=True, check=False).returncode


def test_the_names_of_the_exit_codes(share: Path) -> None:
    names = ("OK", "ERROR", "MASTER", "BACKUP", "SLAVE", "STOPPED", "LIVE")
    text = f". {share}/koi-service.sh; echo " + " ".join(f"$KOI_{name}" for name in names)
    said = subprocess.run(["/bin/sh", "-euc", text], capture_output=True, text=True, check=True).stdout.split()
    codes = (status.OK, 1, status.PROMOTED, status.RUNNING, status.RUNNING, status.STOPPED, status.LIVE)
    assert said == [str(code) for code in codes]


def test_the_samples_are_services(share: Path) -> None:
    found = scan(str(share / "demo"))
    assert [(one.name, one.priority, one.is_run, one.faults) for one in found.definitions] == [
        ("address", 10, False, ()), ("web", 20, True, ()),
    ]
    assert found.ignored == () and found.faults == ()


def test_the_address_has_one_holder(share: Path, tmp_path: Path) -> None:
    service = share / "demo" / "10-address"
    assert run(service / "status", tmp_path, "a") == status.RUNNING
    assert run(service / "demote", tmp_path, "a") == 0
    assert run(service / "promote", tmp_path, "a") == 0 and run(service / "status", tmp_path, "a") == status.PROMOTED
    assert run(service / "status", tmp_path, "b") == status.RUNNING
    assert run(service / "demote", tmp_path, "b") == 0, "another's address is not given up"
    assert (tmp_path / "address").read_text() == "a\n"
    assert run(service / "demote", tmp_path, "a") == 0 and not (tmp_path / "address").exists()


def test_the_web_page_names_its_node(share: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "KOI_DEMO_DIR": str(tmp_path), "KOI_NODE": "a"}
    with subprocess.Popen([str(share / "demo" / "20-web" / "run")], env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            port = int(until(lambda: (tmp_path / "web.a").exists() and (tmp_path / "web.a").read_text()))
            assert page(port) == "a backup\n"
            (tmp_path / "address").write_text("a\n")
            assert page(port) == "a master\n"
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(10) == -signal.SIGTERM


def page(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()
