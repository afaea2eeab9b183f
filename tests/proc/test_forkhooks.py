"""koinode's children run no fork hooks of Python's modules (koi/proc/forkhooks.py)."""

from __future__ import annotations

import subprocess
import sys

IMPORTS = "import koi.node, koi.proc.root, koi.proc.elector, koi.proc.runner, koi.proc.worker"


def _registered(first: str) -> list[str]:
    """The modules that register a fork hook while this and then all of koinode is imported."""
    code = f"""
import os, sys
found = []
def note(**hooks):
    found.extend(hook.__module__ or type(hook.__self__).__module__ for hook in hooks.values())
os.register_at_fork = note
{first}
{IMPORTS}
print(*sorted(set(found)))
"""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_no_module_of_koinode_registers_a_fork_hook() -> None:
    assert _registered("") == []


def test_the_watch_of_this_file_sees_a_hook() -> None:
    assert "threading" in _registered("import threading")


def test_threads_still_work_in_a_forked_child() -> None:
    """The elector has one, which writes its record."""
    code = f"""
import os
{IMPORTS}
pid = os.fork()
if pid == 0:
    import threading
    done = threading.Event()
    thread = threading.Thread(target=done.set)
    thread.start()
    thread.join(5)
    os._exit(0 if done.is_set() and not thread.is_alive() and threading.current_thread() is threading.main_thread() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
