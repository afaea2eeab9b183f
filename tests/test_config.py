"""koi.conf as users write it: what loads, what it means, and that every fault is told with line, key and remedy."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from koi import config as configuration
from koi.config import Address, Config, keygen, load, loads, override
from koi.configkeys import SECTIONS
from koi.core.timing import derive
from koi.errors import ConfigError, KoiError

PASSWORD = "correct horse"
THREE = "cluster: {electors: {a: 10.0.0.1, b: 10.0.0.2, c: 10.0.0.3}}\n"


def read(text: str, name: str | None = "a", password: str | None = PASSWORD) -> Config:
    return loads(text.encode(), "/etc/koi/koi.conf", name, password)


def faults(text: str, name: str | None = "a", password: str | None = PASSWORD) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, name, password)
    return caught.value.faults


def fault(text: str, name: str | None = "a", password: str | None = PASSWORD) -> str:
    found = faults(text, name, password)
    assert len(found) == 1, found
    return found[0]


def test_an_empty_file_is_a_node_alone_with_every_default():
    config = read("")
    assert (config.node.name, config.node.elector, config.node.runner) == ("a", True, True)
    assert config.cluster.electors.names == ("a",)
    assert config.cluster.electors[0].addresses == (Address("127.0.0.1", 42012),)
    assert (config.cluster.quorum, config.cluster.port, config.cluster.bind) == (1, 42012, ("::",))
    assert config.timing == derive(3.0)
    assert config.warnings == ()


def test_name_is_the_host_name_unless_given():
    assert read("", name=None).node.name == os.uname().nodename
    assert read("node: {name: 0123}", name=None).node.name == "0123"
    assert read("node: {name: b}", name="c").node.name == "c"
    assert "node.name: from the command line is '-x'; a name is" in fault("", name="-x")


def test_a_name_that_is_wrong_is_one_fault_only():
    assert "node.name: is 'a b'; a name is" in fault("node: {name: a b, runner: false}\n" + THREE, name=None)


@pytest.mark.parametrize("text, seconds", [
    ("250ms", 0.25), ("3s", 3), ("2m", 120), ("1h", 3600), ("7", 7), ("1.5", 1.5), ("'9'", 9),
])
def test_durations(text: str, seconds: float):
    assert read(f"service: {{start_timeout: {text}}}").service.start_timeout == seconds


@pytest.mark.parametrize("text", ["3 days", "-1", "1e3", ".inf", "[3s]", "3s3", "''", "1:30", "true"])
def test_what_is_no_duration(text: str):
    assert fault(f"service:\n  start_timeout: {text}").startswith("/etc/koi/koi.conf:2: service.start_timeout: ")


def test_a_duration_out_of_range_says_the_range():
    assert "is 48h; must be from 10ms to 24h" in fault("service: {start_timeout: 48h}")


@pytest.mark.parametrize("text, expected", [
    ("192.168.1.2", Address("192.168.1.2", 42012)),
    ("192.168.1.2:5001", Address("192.168.1.2", 5001)),
    ("host-1.example.org:5001", Address("host-1.example.org", 5001)),
    ('"[fd00::4]:42013"', Address("fd00::4", 42013)),
    ('"[fd00:0:0::4]"', Address("fd00::4", 42012)),
    ("fd00::4", Address("fd00::4", 42012)),
    ("fe80::1%eth0", Address("fe80::1%eth0", 42012)),
    ("'::ffff:10.0.0.1'", Address("10.0.0.1", 42012)),
])
def test_addresses(text: str, expected: Address):
    elector = read(f"cluster: {{electors: {{a: {text}}}}}").cluster.electors.get("a")
    assert elector and elector.addresses == (expected,)


@pytest.mark.parametrize("text", [
    "1.2.3", "1.2.3.4.5", "300.1.1.1", "a b", "'host:'", "host:0", "host:65536", "host:x", "host:٣", '"[fd00::4"', '"[fd00::4]x"',
    '"[host]:1"', "fd00::g", "0.0.0.0", '"::"', "''", "-a", "a..b", "[]", "{}", "null", "[[x]]", "42", "!x y",
])
def test_what_is_no_address(text: str):
    assert fault(f"cluster:\n electors:\n  a: {text}").startswith("/etc/koi/koi.conf:3: cluster.electors.a: ")


def test_own_port_comes_from_the_own_entry():
    text = "cluster: {port: 5000, electors: {a: ['10.0.0.1:6000', '10.1.0.1:6000'], b: 10.0.0.2}}"
    assert read(text, "a").cluster.port == 6000
    assert read(text, "b").cluster.port == 5000
    assert read(text, "r").cluster.port == 5000
    assert [e.port for e in read(text).cluster.electors] == [6000, 5000]


def test_addresses_of_one_elector_share_a_port_and_none_is_given_twice():
    assert "different ports" in fault("cluster: {electors: {a: ['10.0.0.1:1', '10.0.0.2:2']}}")
    assert "10.0.0.1:42012, which a has already" in fault("cluster: {electors: {a: 10.0.0.1, b: '10.0.0.1:42012'}}")


def test_electors_are_ordered_by_name():
    electors = read("cluster: {electors: {c: 10.0.0.3, a: 10.0.0.1, b: 10.0.0.2}}").cluster.electors
    assert electors.names == ("a", "b", "c")
    assert electors.get("x") is None
    assert pickle.loads(pickle.dumps(electors)) == electors


def test_roles():
    assert read(THREE, "a").node.elector
    assert not read(THREE, "r").node.elector
    assert not read(THREE + "node: {elector: false}", "a").node.elector
    assert not read(THREE + "node: {runner: false}", "a").node.runner
    assert "/etc/koi/koi.conf:2: node.elector: is true, but r is not under" in fault(THREE + "node: {elector: true}", "r")
    assert "only elector" in fault("node: {elector: false, runner: false}")


def test_a_node_that_would_do_nothing_is_a_fault():
    assert "/etc/koi/koi.conf:3: node.runner: is false, and r is no elector" in fault(THREE + "node:\n  runner: false", "r")


def test_quorum():
    assert read(THREE).cluster.quorum == 2
    assert read("cluster: {quorum: 3, electors: {a: h1, b: h2, c: h3}}").cluster.quorum == 3
    below = "cluster:\n  quorum: 1\n  electors: {a: h1, b: h2, c: h3}\n"
    assert "/etc/koi/koi.conf:2: cluster.quorum: is 1, less than a majority of 3 electors (2)" in fault(below)
    assert "unsafe_quorum: true" in fault(below)
    unsafe = read(below + "  unsafe_quorum: true")
    assert unsafe.cluster.quorum == 1
    assert "less than a majority" in unsafe.warnings[0]
    assert "more than there are electors (3)" in fault(below.replace("quorum: 1", "quorum: 4"))
    for wrong in ("0", "-1", "two", "1.5", "'2'", "[2]"):
        assert "cluster.quorum: " in fault(f"cluster: {{quorum: {wrong}}}")


def test_the_four_intervals_derive_from_failover_and_can_be_set_alone():
    config = read("time: {failover: 10s, lease: 4s}\ncluster: {bully_delay: 1s}\nservice: {promote_timeout: 5s}")
    assert (config.time.heartbeat, config.time.lease, config.time.demote_grace) == (1.0, 4.0, 3.8)
    assert config.timing == derive(10.0, lease=4.0, bully_delay=1.0, promote_timeout=5.0)


@pytest.mark.parametrize("text, expected", [
    ("time:\n  failover: 3s\n  lease: 900ms", [":3: time.lease: is 0.9 s; must be at least 0.969 s"]),
    ("time:\n  heartbeat: 500ms", [":2: time.heartbeat: does not fit: lease, as it derives"]),
    ("time:\n  leader_timeout: 800ms", [":2: time.leader_timeout: is 0.8 s; must be at least 3 x heartbeat"]),
    ("time:\n  leader_timeout: 5s", [":2: time.leader_timeout: is 5 s; plus 200 ms it must be within"]),
    ("time:\n  heartbeat: 15ms", [":2: time.heartbeat: is 0.015 s; must be at least 0.02 s"]),
    ("time:\n  forget_runner: 2s", [":2: time.forget_runner: is 2 s; must be above"]),
    ("time:\n  failover: 30m\n  lease: 31m", [":2: time.failover: does not fit: forget_runner, by default"]),
    ("time:\n  failover: 200ms", [":2: time.failover: does not fit: lease", ":2: time.failover: does not fit: leader_timeout"]),
])
def test_every_broken_inequality_is_told_at_its_line(text: str, expected: list[str]):
    found = faults(text)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_every_fault_at_once_in_the_order_of_lines():
    text = "time:\n  failover: x\nnode:\n  mode: idle\n  rank: high\n"
    text += "cluster:\n  id: 65536\n  port: 0\n  bind: [eth0]\n  preempt: 'yes'\n"
    found = faults(text)
    assert [line.split(": ")[:2] for line in found] == [
        [f"/etc/koi/koi.conf:{n}", key] for n, key in
        [(2, "time.failover"), (4, "node.mode"), (5, "node.rank"), (7, "cluster.id"), (8, "cluster.port"),
         (9, "cluster.bind"), (10, "cluster.preempt")]
    ]


@pytest.mark.parametrize("text, expected", [
    ("cluster:\n  qorum: 2", ":2: cluster.qorum: no such key; did you mean cluster.quorum?"),
    ("heartbeat: 1s", ":1: heartbeat: no such key; did you mean time.heartbeat?"),
    ("clusters: {}", ":1: clusters: no such key; did you mean cluster?"),
    ("xyzzy: 1", ":1: xyzzy: no such key; known here: cluster, node, service, time"),
])
def test_an_unknown_key_suggests_the_nearest(text: str, expected: str):
    assert fault(text) == "/etc/koi/koi.conf" + expected


def test_a_key_given_twice_is_a_fault():
    assert fault("cluster:\n  id: 1\n  id: 2") == "/etc/koi/koi.conf:3: cluster.id: is given twice (first in line 2); keep one"
    assert ":2: node: is given twice" in fault("node: {}\nnode: {}")
    assert "cluster.electors.a: is given twice" in fault("cluster: {electors: {a: h1, a: h2}}")


def test_fence_and_restarts():
    config = read("cluster: {fence: /bin/true}\nservice: {restarts: 2}")
    assert (config.cluster.fence, config.service.restarts) == ("/bin/true", 2)
    assert "service.restarts" in fault("service: {restarts: -1}")


def test_null_is_the_default_for_every_key():
    text = "".join(f"{section}:\n" + "".join(f"  {key}: null\n" for key in keys) for section, keys in SECTIONS.items())
    assert read(text) == read("")


@pytest.mark.parametrize("text", [
    "- 1", "cluster", "cluster: 3", "cluster: [1]", "{a: 1}: 2", "!x {}", "cluster: !x", "? [1]\n: 2",
])
def test_a_file_of_another_shape_is_a_fault(text: str):
    assert ":1: " in faults(text)[0]


@pytest.mark.parametrize("text, line", [("node:\n  name: [", 2), ("node:\n\tname: a", 2), ("a: 1\n---\nb: 2", 2), ("x: *y", 1)])
def test_what_is_not_yaml_is_told_with_its_line(text: str, line: int):
    assert re.match(rf"/etc/koi/koi.conf:{line}: is not YAML: ", fault(text))


def test_folders_are_absolute_from_the_file(tmp_path: Path):
    config = read("node: {state_dir: state, run_dir: /run/x/}\nservice: {folder: ../services}")
    assert (config.node.state_dir, config.node.run_dir) == ("/etc/koi/state", "/run/x")
    assert config.service.folder == "/etc/services"


def test_the_digest_tells_what_must_be_equal_and_nothing_else():
    digest = read(THREE).digest
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert read(THREE + "node: {rank: 3}\nservice: {promote_timeout: 9s}", "b", "another password").digest == digest
    changed = ["time: {failover: 4s}\n", "time: {forget_runner: 40m}\n"]
    assert all(read(THREE + text).digest != digest for text in changed)
    assert read(THREE.replace("10.0.0.3", "10.0.0.4")).digest != digest
    assert read(THREE.replace("{electors", "{id: 14, electors")).digest != digest
    assert read(THREE.replace("{electors", "{quorum: 3, electors")).digest != digest


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_password_comes_from_the_file_its_own_file_or_the_caller(tmp_path: Path):
    path = secret_file(tmp_path, b"from the file\n")
    assert read("cluster: {password: 0123456789}", password=None).cluster.password == "0123456789"
    assert read(f"cluster: {{password_file: {path}}}", password=None).cluster.password == "from the file"
    assert loads(b"cluster: {password_file: password}", str(tmp_path / "koi.conf")).cluster.password == "from the file"
    assert read("cluster: {password_file: /nowhere}", password="from outside").cluster.password == "from outside"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_password_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int):
    path = secret_file(tmp_path, b"from the file\n", mode)
    found = fault(f"cluster:\n  password_file: {path}", password=None)
    assert f":2: cluster.password_file: is {path}, which others" in found
    assert f"run: chmod 600 {path}" in found


@pytest.mark.parametrize("content", [b"", b"\n", b"1234567", b"two lines\nof password", b"\xff" * 9, b"x" * 2000])
def test_a_password_file_without_a_password_is_a_fault(tmp_path: Path, content: bytes):
    assert "must hold one line" in fault(f"cluster: {{password_file: {secret_file(tmp_path, content)}}}", password=None)


def test_a_password_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keys = SECTIONS["cluster"]
    monkeypatch.setitem(keys, "password_file", replace(keys["password_file"], default=str(tmp_path / "none")))
    assert "cluster.password: is required" in fault("", password=None)
    assert "is no file" in fault(f"cluster: {{password_file: {tmp_path}}}", password=None)


def test_password_and_password_file_together_are_a_fault():
    assert "both set" in fault("cluster: {password: 12345678, password_file: /x}", password=None)


@pytest.mark.parametrize("value", [
    "hunter2", "[hunter2hunter2]", "{hunter2: hunter2}", "!hunter2", "!hunter2!x y", "*hunter2", '"hunter2\\0hunter2"',
    "&hunter2", "'" + "hunter2" * 300 + "'",
])
def test_a_wrong_password_is_never_quoted(value: str):
    found = faults(f"cluster:\n  password: {value}\n", password=None)
    assert ":2: " in found[0]
    assert "hunter" not in "\n".join(found)


def test_a_short_password_from_outside_is_a_fault():
    assert "hunter" not in fault("", password="hunter2")


def test_the_password_shows_in_no_repr():
    config = read("cluster: {password: hunter2hunter2}", password=None)
    assert "hunter" not in repr(config) + repr(config.cluster) + config.digest


def test_a_configuration_with_a_password_that_others_can_read_is_warned_of(tmp_path: Path):
    path = tmp_path / "koi.conf"
    path.write_text("cluster: {password: hunter2hunter2}")
    path.chmod(0o644)
    assert f"chmod 600 {path}" in load(str(path)).warnings[0]
    path.chmod(0o600)
    assert load(str(path)).warnings == ()


def test_intervals_that_break_failover_are_warned_of():
    assert "3 s does not hold" in read("time: {lease: 10s}").warnings[0]


def test_load_from_the_default_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(configuration, "DEFAULT_PATHS", (str(first), str(second)))
    with pytest.raises(ConfigError, match="write one, or name another with -f"):
        load()
    second.write_text("node: {name: second}")
    assert load(password=PASSWORD).node.name == "second"
    first.write_text("node: {name: first}")
    assert load(password=PASSWORD).path == str(first)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    for path in (str(tmp_path), str(tmp_path / "none"), "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(path, password=PASSWORD)
    (tmp_path / "large").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than"):
        load(str(tmp_path / "large"), password=PASSWORD)


def test_errors_are_koi_errors_and_survive_a_pipe():
    error = ConfigError(["one", "two"])
    assert isinstance(error, KoiError)
    assert str(pickle.loads(pickle.dumps(error))) == "one\ntwo" == error.message


def test_override_for_one_service():
    defaults = read("").service
    source = b"start_timeout: 5s\nenv:\n  PORT: 8080\n  EMPTY: ''\nworkingdir: data"
    changed = override(defaults, source, "/etc/koi/services/10-db/service.yaml")
    assert changed.timeout("start") == 5 and changed.timeout("stop") == defaults.stop_timeout
    assert changed.env == (("PORT", "8080"), ("EMPTY", ""))
    assert changed.workingdir == "/etc/koi/services/10-db/data"
    assert override(defaults, {"start_timeout": "5s"}, "x").start_timeout == 5
    assert override(defaults, b"", "x") == defaults


def test_override_tells_every_fault():
    source = b"folder: /x\nstart_timeout: soon\nrestarts: -2\nenv:\n  KOI_NODE: x\n  1A: x\n  B: [1]\n"
    with pytest.raises(ConfigError) as caught:
        override(read("").service, source, "service.yaml")
    assert [line.split(": ")[:2] for line in caught.value.faults] == [
        ["service.yaml:1", "folder"], ["service.yaml:2", "start_timeout"], ["service.yaml:3", "restarts"],
        ["service.yaml:5", "env.KOI_NODE"], ["service.yaml:6", "env.1A"], ["service.yaml:7", "env.B"],
    ]


def test_keygen_makes_a_fresh_password_that_yaml_takes_as_it_is():
    first, second = keygen(), keygen()
    assert first != second and len(first) >= 32
    assert read(f"cluster: {{password: {first}}}", password=None).cluster.password == first


def either_loads_or_is_a_config_error(content: bytes) -> None:
    try:
        loads(content, "any.conf")
    except ConfigError as error:
        assert error.faults and all(line.startswith("any.conf") and line.isprintable() for line in error.faults)


@given(st.binary(max_size=200))
@example(b'"\\UFFFFFFFF": 1')
@example(b'cluster: {password: "\\uD800\\uD800\\uD800\\uD800"}')
@example(b"%YAML 1." + b"9" * 5000 + b"\n--- 1")
@example(b"[" * 5000)
@example(b"&a [*a]")
@example(b"<<: {a: 1}")
@example(b"node: &n {name: *n}")
def test_any_bytes_load_or_are_a_config_error(content: bytes):
    either_loads_or_is_a_config_error(content)


WORDS = st.sampled_from([*SECTIONS, *(key for keys in SECTIONS.values() for key in keys), "a", "b", "<<", "=", "~"])
SCALARS = st.sampled_from(
    ["1", "0", "-1", "3s", "250ms", "1h", "majority", "true", "no", "~", "''", "10.0.0.1", "h:1", "'[::1]:5'", "2001-01-01",
     "9" * 5000, ".nan", "0x10", "&a x", "*a", "!t", "!!str 7", '"\\0"', "password1234", "/tmp", "active", "hold", "[", "}"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
    | st.lists(st.tuples(WORDS, inner), max_size=4).map(lambda v: "{" + ", ".join(f"{k}: {x}" for k, x in v) + "}"),
    max_leaves=8,
)
SECTION = st.lists(st.tuples(WORDS, VALUES), max_size=5).map(lambda keys: "".join(f"  {k}: {v}\n" for k, v in keys))


@given(st.lists(st.tuples(st.sampled_from([*SECTIONS, "other"]), SECTION), max_size=4))
def test_any_keys_and_values_load_or_are_a_config_error(sections: list[tuple[str, str]]):
    either_loads_or_is_a_config_error("".join(f"{name}:\n{keys}" for name, keys in sections).encode())
