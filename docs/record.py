"""Records docs/failover.svg: what `koi watch` shows while every process of the master is killed and then started again.

    python docs/record.py

The cluster is that of `koi demo`, the pictures are those of koi.view_tree, their times are those of the run: nothing is
drawn by hand. A picture is kept when a word has changed, or, where only ages have grown, after half a second.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from koi.client import JSON  # noqa: E402
from koi.client_line import pause  # noqa: E402
from koi.demo_cluster import Cluster  # noqa: E402
from koi.errors import KoiError  # noqa: E402
from koi.view import STYLES  # noqa: E402
from koi.view_tree import tree_lines  # noqa: E402

PATIENCE_S, LOOK_S, STILL_S, REST_S = 60.0, 0.1, 0.5, 2.0
CHAR, LINE, EDGE = 7.7, 18, 14
COLOURS = {"good": "#5fd75f", "fair": "#5fafd7", "odd": "#d7af5f", "bad": "#ff6f5f", "dim": "#888888", "head": "#ffffff"}
NO_BREAK = "\u00a0"
"""In the place of spaces, which some viewers make one of."""
CLASS = {code: name for name, code in STYLES.items()}
COLOUR = re.compile(r"\x1b\[[\d;]*m")
PART = re.compile(r"(?:\x1b\[([\d;]*)m)?([^\x1b]*)")

Frame = tuple[float, list[str]]


class Recorder:
    """Looks at a cluster and keeps what changes, with the seconds since the first picture."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.frames: list[Frame] = []
        self.caption = "$ koi watch"
        self.began = time.monotonic()

    def until(self, done: Callable[[JSON], bool]) -> JSON:
        """Records until the status is so, and then for REST_S more."""
        ends, rests = time.monotonic() + PATIENCE_S, None
        while True:
            status = self._look()
            now = time.monotonic()
            if status is not None and rests is None and done(status):
                rests = now + REST_S
            if status is not None and rests is not None and now >= rests:
                return status
            if now >= ends:
                raise KoiError(f"not within {PATIENCE_S:g} s: {self.caption}")
            pause(LOOK_S)

    def _look(self) -> JSON | None:
        """The status, from the first node that answers; what it looks like is a frame."""
        for node in (node for node in self.cluster.nodes if node.running):
            try:
                status = node.koi.status()
            except KoiError:
                continue
            self._keep([self.caption, "", *tree_lines(status, colour=True)])
            return status
        return None

    def _keep(self, lines: list[str]) -> None:
        at = time.monotonic() - self.began
        if self.frames:
            last_at, last = self.frames[-1]
            same = [words(line) for line in lines] == [words(line) for line in last]
            if lines == last or same and at - last_at < STILL_S:
                return
        self.frames.append((at, lines))


def words(line: str) -> str:
    """A line without its numbers and the spaces that depend on them."""
    return re.sub(r"[\d.]+| +|ms", "", plain(line))


def story() -> list[Frame]:
    """A master, its end, the next master, the return of the node."""
    cluster = Cluster(3)
    try:
        cluster.prepare()
        for node in cluster.nodes:
            cluster.start(node)
        recorder = Recorder(cluster)
        master = cluster.node(recorder.until(_well)["cluster"]["master"])
        recorder.frames, recorder.began = [], time.monotonic()
        recorder.until(_well)
        cluster.kill(master)
        recorder.caption = f"$ koi watch        # kill -9 to every process of {master.name}"
        recorder.until(lambda status: _promoted(status) not in (None, master.name))
        cluster.start(master)
        recorder.caption = f"$ koi watch        # koinode of {master.name} is started again"
        recorder.until(_well)
        return recorder.frames
    finally:
        cluster.close()


def _promoted(status: JSON) -> str | None:
    """The node that is wholly Master."""
    return next((n["name"] for n in status["nodes"] if n["state"] == "Master"), None)


def _well(status: JSON) -> bool:
    states = sorted(n["state"] or "" for n in status["nodes"])
    return states == ["Backup", "Backup", "Master"] and status["cluster"]["quorum"]["have"] == 3


# --- the picture --------------------------------------------------------------------------------


def svg(frames: list[Frame]) -> str:
    """The frames as one picture that plays them again and again."""
    columns = max(len(plain(line)) for _, lines in frames for line in lines)
    rows = max(len(lines) for _, lines in frames)
    width, height = round(2 * EDGE + CHAR * columns), 2 * EDGE + LINE * rows
    whole = frames[-1][0] + REST_S
    ends = [at for at, _ in frames[1:]] + [whole]
    shown = [f"@keyframes f{i} {{ {_steps(at, end, whole)} }}\n#f{i} {{ animation-name: f{i} }}"
             for i, ((at, _), end) in enumerate(zip(frames, ends, strict=True))]
    style = "\n".join([
        "text { font: 13px monospace; white-space: pre; fill: #d0d0d0 }",
        *(f".{name} {{ fill: {colour} }}" for name, colour in COLOURS.items()),
        f"g {{ visibility: hidden; animation: {whole:.2f}s step-end infinite }}", *shown,
        f"#f{len(frames) - 1} {{ visibility: visible }}",
    ])
    body = "\n".join(_frame(i, lines) for i, (_, lines) in enumerate(frames))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">\n'
        f"<title>koi watch while the master is killed</title>\n<style>\n{style}\n</style>\n"
        f'<rect width="100%" height="100%" rx="6" fill="#1c1c1c"/>\n{body}\n</svg>\n'
    )


def _steps(begin: float, end: float, whole: float) -> str:
    """When a frame is to be seen, as the steps of an animation."""
    steps = {0.0: "hidden", 100 * begin / whole: "visible", 100 * end / whole: "hidden"}
    if end >= whole:
        steps[100.0] = "visible"
    return " ".join(f"{at:.3f}% {{ visibility: {how} }}" for at, how in steps.items())


def _frame(number: int, lines: list[str]) -> str:
    texts = [
        f'<text x="{EDGE}" y="{EDGE + LINE * (row + 1) - 5}" textLength="{_length(line)}">{_painted(line)}</text>'
        for row, line in enumerate(lines) if line
    ]
    return f'<g id="f{number}">{"".join(texts)}</g>'


def _length(line: str) -> str:
    """Fixed, so that the columns stand below each other in any font."""
    return f"{CHAR * len(plain(line)):.1f}"


def plain(line: str) -> str:
    """The line without its colours."""
    return COLOUR.sub("", line)


def _painted(line: str) -> str:
    parts = []
    for code, text in PART.findall(line):
        name, shown = CLASS.get(code), escape(text).replace(" ", NO_BREAK)
        parts.append(f'<tspan class="{name}">{shown}</tspan>' if name else shown)
    return "".join(parts)


if __name__ == "__main__":
    (DOCS / "failover.svg").write_text(svg(story()), encoding="utf-8")
