"""keepalived beside Koi: three in network namespaces of their own on a bridge, which are made here and removed again.

crash: SIGKILL to all of the master's keepalived -> the next node's notify script says MASTER. move: SIGTERM to it, the same.
cut: the port of the master's host leaves the bridge, which its own link does not show, and comes back after CUT_S.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Optional

from tests.bench import cut
from tests.bench.failover import CRASH
from tests.bench.processes import cpu_s, pss_mb
from tests.bench.rows import Row, ms
from tests.bench.stamps import SHELL
from tests.cluster import send, tree_of, until

MOVE = "planned move, whole"
IDLE, MEMORY = "idle CPU of a backup's node", "PSS of a node"
TWO_MASTERS = "master's node cut off silently for 10 s: seconds with two masters"
NODES = 3
CUT_S = 10.0
MAX_CUTS = 5
"""Each takes CUT_S and as long as it takes them to agree again."""
IDLE_S = 10.0
CONFIG = """global_defs {{
  router_id n{number}
  vrrp_version 3
  script_user root
  enable_script_security
}}
vrrp_instance one {{
  state BACKUP
  nopreempt
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int {advert}
  virtual_ipaddress {{
    10.99.77.100/24
  }}
  notify {folder}/notify
}}
"""
NOTIFY = SHELL + 'echo "$EPOCHREALTIME {number} $3" >> {stamps}\n'


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


class Net:
    """Namespaces and a bridge, named after this process so that nobody else's are touched."""

    def __init__(self) -> None:
        self.prefix = f"kb{os.getpid() % 100000}"
        self.hub = f"{self.prefix}hub"

    def name(self, number: int) -> str:
        """The namespace of a node."""
        return f"{self.prefix}n{number}"

    def __enter__(self) -> Net:
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.hub, "link", "set", "br0", "up")
        for number in range(1, NODES + 1):
            name, port = self.name(number), f"p{number}"
            _ip("netns", "add", name)
            _ip("-n", self.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", self.hub, "link", "set", port, "master", "br0", "up")
            _ip("-n", name, "address", "add", f"10.99.77.{number}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        return self

    def cut(self, number: int) -> float:
        """No packet passes to or from the node any more; the wall time just before."""
        began = time.time()
        _ip("-n", self.hub, "link", "set", f"p{number}", "nomaster")
        return began

    def heal(self, number: int) -> None:
        """Undo `cut`."""
        _ip("-n", self.hub, "link", "set", f"p{number}", "master", "br0")

    def __exit__(self, *exception: object) -> None:
        for name in [self.hub, *(self.name(number) for number in range(1, NODES + 1))]:
            _ip("netns", "delete", name, check=False)


class Routers:
    """The three keepalived."""

    def __init__(self, net: Net, folder: Path, advert: str) -> None:
        self.net, self.folder = net, folder
        self.stamps = folder / "stamps"
        self.stamps.touch()
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(1, NODES + 1):
            own = folder / str(number)
            own.mkdir()
            notify = own / "notify"
            notify.write_text(NOTIFY.format(number=number, stamps=self.stamps))
            notify.chmod(0o700)
            text = CONFIG.format(number=number, priority=100 - number, advert=advert, folder=own)
            (own / "conf").write_text(text)

    def start(self, number: int) -> None:
        """Run one, and wait until it is backup or master."""
        known, own = len(self.states()), self.folder / str(number)
        for left in ("pid", "vrrp", "checkers"):
            (own / left).unlink(missing_ok=True)  # of a killed one, whose pid may be another's by now
        files = ["-p", str(own / "pid"), "-r", str(own / "vrrp"), "-c", str(own / "checkers")]
        command = ["ip", "netns", "exec", self.net.name(number), "keepalived", "-n", "-P", "-f", str(own / "conf"), *files]
        self.running[number] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("keepalived is up", lambda: any(n == number for _, n, _ in self.states()[known:]))

    def states(self) -> list[tuple[float, int, str]]:
        """(time, number, state) of all changes so far."""
        lines = [line.split() for line in self.stamps.read_text().splitlines()]
        return [(float(words[0]), int(words[1]), words[2]) for words in lines if len(words) == 3]

    def masters(self) -> list[int]:
        """Those that run and said MASTER last."""
        last = {number: state for _, number, state in self.states()}
        return [number for number in self.running if last.get(number) == "MASTER"]

    def master(self) -> Optional[int]:
        """The one that runs and said MASTER last."""
        return next(iter(self.masters()), None)

    def promoted(self, other_than: int, after: float) -> Optional[float]:
        """When another one became master."""
        return next((at for at, n, state in self.states() if at > after and state == "MASTER" and n != other_than), None)

    def end(self, number: int, signum: int) -> float:
        """End one; the wall time just before."""
        process = self.running.pop(number)
        pids = tree_of(process.pid)
        began = time.time()
        send(pids if signum == signal.SIGKILL else pids[:1], signum)
        process.wait()
        _ip("-n", self.net.name(number), "address", "delete", "10.99.77.100/24", "dev", "eth0", check=False)
        return began

    def trial(self, signum: int) -> float:
        """End the master; seconds to the next."""
        old = until("a master", self.master)
        began = self.end(old, signum)
        stamp = until("the next", lambda: self.promoted(old, began))
        self.start(old)
        time.sleep(1)
        return stamp - began

    def cut_off(self) -> tuple[float, float]:
        """Cut the master off for CUT_S; seconds to the next one, and seconds with both."""
        old = until("a master", self.master)
        began = self.net.cut(old)
        stamp = until("the next", lambda: self.promoted(old, began))
        time.sleep(max(0.0, began + CUT_S - time.time()))
        self.net.heal(old)
        until("one master", lambda: len(self.masters()) == 1)
        one_again = next(at for at, _, state in self.states() if at > stamp and state == "BACKUP")
        time.sleep(1)
        return stamp - began, one_again - stamp


def rows(trials: int) -> list[Row]:
    """Crash, planned move and silent cut for adverts of 1 s and 0.1 s, memory and idle CPU."""
    if shutil.which("keepalived") is None or shutil.which("ip") is None:
        return [Row(CRASH, "keepalived", "ms", missing="keepalived or iproute2 is not installed")]
    if os.geteuid() != 0:
        return [Row(CRASH, "keepalived", "ms", missing="network namespaces need root")]
    found = []
    for advert in ("1", "0.1"):
        found += _measure(f"keepalived, advert {advert} s", advert, trials)
    return found


def _measure(who: str, advert: str, trials: int) -> list[Row]:
    with Net() as net, tempfile.TemporaryDirectory() as folder:
        routers = Routers(net, Path(folder), advert)
        try:
            for number in range(1, NODES + 1):
                routers.start(number)
            crash = [routers.trial(signal.SIGKILL) for _ in range(trials)]
            move = [routers.trial(signal.SIGTERM) for _ in range(trials)]
            cuts = [routers.cut_off() for _ in range(min(trials, MAX_CUTS))]
            pids = tree_of(next(p.pid for n, p in routers.running.items() if n != routers.master()))
            memory, used = pss_mb(pids), cpu_s(pids)
            time.sleep(IDLE_S)
            used = 100 * (cpu_s(pids) - used) / IDLE_S
        finally:
            for number in list(routers.running):
                routers.end(number, signal.SIGKILL)
    took, both = zip(*cuts, strict=True)
    return [
        ms(CRASH, crash, who), ms(MOVE, move, who), ms(cut.WHAT, took, who),
        Row(TWO_MASTERS, who, "s", tuple(round(s, 2) for s in both)),
        Row(MEMORY, who, "MB", (round(memory, 2),)), Row(IDLE, who, "%", (round(used, 3),)),
    ]
