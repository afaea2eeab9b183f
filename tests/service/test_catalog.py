"""The folder of services: names, priorities, scripts, and what is ignored or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from koi.errors import ConfigError, KoiError
from koi.service.catalog import ACTIONS, FILE, FOLDER, check, scan


def folder(path: Path, *scripts: str, mode: int = 0o755) -> Path:
    """A service's folder with these scripts."""
    path.mkdir(parents=True)
    for name in scripts:
        (path / name).write_text("#!/bin/sh\n")
        (path / name).chmod(mode)
    return path


def test_names_and_priorities(tmp_path: Path) -> None:
    for name in ("10-vip", "5-fs", "db", "100-x", "20-web_1"):
        folder(tmp_path / name)
    found = {one.name: one.priority for one in scan(str(tmp_path)).definitions}
    assert found == {"vip": 10, "fs": 5, "db": None, "100-x": None, "web_1": 20}


def test_scripts_of_a_folder(tmp_path: Path) -> None:
    folder(tmp_path / "db", "start", "stop", "README", "helper")
    one = scan(str(tmp_path)).definitions[0]
    assert (one.kind, one.scripts, one.is_run, one.faults) == (FOLDER, {"start", "stop"}, False, ())
    assert one.command("promote") == [str(tmp_path / "db" / "promote")] and one.directory == str(tmp_path / "db")


def test_run_takes_the_place_of_start_and_stop(tmp_path: Path) -> None:
    folder(tmp_path / "web", "run", "status")
    assert scan(str(tmp_path)).definitions[0].is_run
    folder(tmp_path / "both", "run", "start")
    assert "`run` takes the place" in scan(str(tmp_path)).definitions[0].faults[0]


def test_a_single_file_is_called_with_the_action(tmp_path: Path) -> None:
    (tmp_path / "30-all").write_text("#!/bin/sh\n")
    (tmp_path / "30-all").chmod(0o755)
    one = scan(str(tmp_path)).definitions[0]
    assert (one.name, one.priority, one.kind, one.scripts) == ("all", 30, FILE, frozenset(ACTIONS))
    assert one.command("status") == [str(tmp_path / "30-all"), "status"] and one.directory == str(tmp_path)


def test_an_empty_folder_is_a_service(tmp_path: Path) -> None:
    folder(tmp_path / "nothing")
    one = scan(str(tmp_path)).definitions[0]
    assert one.scripts == frozenset() and one.faults == ()


@pytest.mark.parametrize("name", ["db.rpmsave", ".git", "db~", "#db#", "-x", "a b", "ä", "x" * 64])
def test_ignored_with_a_reason(tmp_path: Path, name: str) -> None:
    folder(tmp_path / name)
    catalog = scan(str(tmp_path))
    assert catalog.definitions == () and [ignored for ignored, why in catalog.ignored if why] == [name]


def test_a_file_that_is_not_executable_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hello")
    assert "chmod" in scan(str(tmp_path)).ignored[0][1]


def test_watch_and_disabled(tmp_path: Path) -> None:
    folder(tmp_path / "db", "watch")
    folder(tmp_path / "web", "disabled", mode=0o644)
    db, web = scan(str(tmp_path)).definitions
    assert (db.has_watch, db.disabled, web.has_watch, web.disabled) == (True, False, False, True)
    assert check(scan(str(tmp_path)), None, lambda d, s, f: d) == []
    folder(tmp_path / "old", "watch", mode=0o644)
    assert f"chmod +x {tmp_path}/old/watch" in check(scan(str(tmp_path)), None, lambda d, s, f: d)[0]


def test_a_script_that_is_not_executable_is_named(tmp_path: Path) -> None:
    folder(tmp_path / "db", "promote", mode=0o644)
    assert f"chmod +x {tmp_path}/db/promote" in check(scan(str(tmp_path)), None, lambda d, s, f: d)[0]


def test_a_link_to_nothing_and_a_folder_are_no_scripts(tmp_path: Path) -> None:
    folder(tmp_path / "db")
    (tmp_path / "db/demote").symlink_to(tmp_path / "gone")
    (tmp_path / "db/stop").mkdir()
    faults = check(scan(str(tmp_path)), None, lambda d, s, f: d)
    assert f"{tmp_path}/db/stop: is no file; mend or remove it" in faults
    assert f"{tmp_path}/db/demote: is a link to what is not there; mend or remove it" in faults


def test_two_services_of_one_name(tmp_path: Path) -> None:
    folder(tmp_path / "10-db")
    folder(tmp_path / "20-db")
    catalog = scan(str(tmp_path))
    assert len(catalog.definitions) == 1 and "10-db" in catalog.faults[0] and "20-db" in catalog.faults[0]


def test_the_settings_of_a_service(tmp_path: Path) -> None:
    folder(tmp_path / "db")
    (tmp_path / "db" / "service.yaml").write_text("start_timeout: 5s\n")
    seen: list[tuple[object, bytes, str]] = []

    def override(defaults: object, content: bytes, file: str) -> object:
        seen.append((defaults, content, file))
        raise ConfigError(["a fault"])

    assert check(scan(str(tmp_path)), "defaults", override) == ["a fault"]
    assert seen == [("defaults", b"start_timeout: 5s\n", str(tmp_path / "db" / "service.yaml"))]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KoiError, match="service.folder"):
        scan(str(tmp_path / "missing"))


def test_a_link_to_a_folder_counts(tmp_path: Path) -> None:
    folder(tmp_path / "real" / "x", "start")
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "db").symlink_to(tmp_path / "real" / "x")
    (tmp_path / "services" / "broken").symlink_to(tmp_path / "nowhere")
    catalog = scan(str(tmp_path / "services"))
    assert [one.name for one in catalog.definitions] == ["db"] and catalog.definitions[0].scripts == {"start"}
    why: Optional[str] = dict(catalog.ignored).get("broken")
    assert why is not None
