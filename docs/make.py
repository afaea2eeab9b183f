"""Makes what follows from the programs' own words: the manual pages and the completions of bash and zsh.

    python docs/make.py           write docs/man and docs/completion
    python docs/make.py --check   exit 1, with the names, if a file there is not what would be written

The grammar comes from the docopt texts of koi/cli.py and koi/node.py, the keys from conf/koi.conf; nothing is told twice.
tests/cli/test_manual.py keeps the files in step.
"""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TOP = DOCS.parent
sys.path.insert(0, str(TOP))

from koi import __version__, cli, node  # noqa: E402
from koi.cli_hints import VALUED  # noqa: E402
from koi.proc.conditions import STATES  # noqa: E402

CONDITIONS = ("master", "master=", "state", "leader", "quorum")
SAFE = "[A-Za-z0-9._-]"
WIDTH = 70
"""Of the pages' source: escapes make its lines longer."""
DATE = "2026-11-26"
"""Of the last change to the pages."""


# --- the docopt text ----------------------------------------------------------------------------


def section(text: str, name: str) -> list[str]:
    """The lines of one section of a docopt text."""
    return text.partition(f"{name}:\n")[2].partition("\n\n")[0].splitlines()


def usages(text: str, program: str) -> list[str]:
    """The lines of Usage, without the program."""
    return [line.strip().partition(f"{program} ")[2] for line in section(text, "Usage")]


def described(text: str, name: str) -> list[tuple[str, str]]:
    """(word, what it is) of each entry of a section; continued lines are joined."""
    found: list[tuple[str, str]] = []
    for line in section(text, name):
        match = re.match(r"  (\S.*?)(?:  +(.*))?$", line)
        if match and not line.startswith("   "):
            found.append((match[1], match[2] or ""))
        else:
            word, words = found.pop()
            found.append((word, f"{words} {line.strip()}"))
    return found


def commands() -> dict[str, str]:
    """Each command of koi and what it does."""
    return dict(described(cli.__doc__ or "", "Commands"))


def options() -> list[tuple[str, str, bool]]:
    """Each option of koi, what it is, and whether it takes a value."""
    return [(word.split()[0], words, word.split()[0] in VALUED) for word, words in described(cli.__doc__ or "", "Options")]


def words_of(command: str) -> list[str]:
    """The words that may follow a command, as the grammar has them; node names as NODE."""
    lines = [line.partition("[options] ")[2] for line in usages(cli.__doc__ or "", "koi") if line.startswith("[options]")]
    line = next(line for line in lines if line.split()[0] == command)
    found = re.findall(r"--[a-z-]+|[a-z]+|[A-Z]+", line.partition(" ")[2])
    values = ("SECONDS", "N", "KEY", "VALUE", "SERVICE", "CONDITION")
    return [word for word in found if not word.startswith("-") and word not in values]


# --- completions --------------------------------------------------------------------------------

BASH = """\
# bash completion of koi, made by docs/make.py from `koi --help`. Names of nodes are asked of the cluster.
_koi_nodes() {{
    koi -t 1 --json status 2>/dev/null | grep -o '"name": "{safe}*", "address"' | cut -d'"' -f4
}}
_koi() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= i
    COMPREPLY=()
    case $before in
        -f|--secret-file) COMPREPLY=($(compgen -f -- "$word")); return ;;
        {valued}) return ;;
        state) COMPREPLY=($(compgen -W "$(_koi_nodes)" -- "$word")); return ;;
    esac
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {valued_all}) ((i++)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    local words
    case $command in
        '') words="{commands}" ;;
{cases}
    esac
    case $word in
        -*) words="{options}" ;;
        *) case " $words " in *' NODE '*) words="${{words/NODE/}} $(_koi_nodes)" ;; esac ;;
    esac
    COMPREPLY=($(compgen -W "${{words/NODE/}}" -- "$word"))
}}
complete -F _koi koi
"""

ZSH = """\
#compdef koi
# zsh completion of koi, made by docs/make.py from `koi --help`. Names of nodes are asked of the cluster.
_koi_nodes() {{
    local -a nodes
    nodes=(${{(f)"$(koi -t 1 --json status 2>/dev/null | grep -o '"name": "{safe}*", "address"' | cut -d'"' -f4)"}})
    compadd -a nodes
}}
_koi_commands() {{
    local -a commands
    commands=(
{commands}
    )
    _describe command commands
}}
_koi_words() {{
    case $words[1] in
{cases}
    esac
}}
_koi() {{
    _arguments -C \\
{options} \\
        '1:command:_koi_commands' '*::argument:_koi_words'
}}
_koi "$@"
"""


def bash() -> str:
    """The completion for bash."""
    valued = [name for name, _, takes in options() if takes]
    cases = [f"        {name}) words=\"{' '.join(_offered(name))}\" ;;" for name in commands() if _offered(name)]
    others = [name for name in valued if name not in ("-f", "--secret-file")]
    return BASH.format(
        safe=SAFE, valued="|".join(others), valued_all="|".join(valued), commands=" ".join(commands()), cases="\n".join(cases),
        options=" ".join(name for name, _, _ in options()),
    )


def zsh() -> str:
    """The completion for zsh."""
    lines = [f"        '{name}:{_quoted(words).replace(':', chr(92) + ':')}'" for name, words in commands().items()]
    cases = []
    for name in commands():
        offered = _offered(name)
        plain = [word for word in offered if word != "NODE"]
        steps = (["_koi_nodes"] if "NODE" in offered else []) + ([f"compadd -- {' '.join(plain)}"] if plain else [])
        if steps:
            cases.append(f"        {name}) {'; '.join(steps)} ;;")
    given = [f"        '{_zsh_option(*option)}'" for option in options()]
    return ZSH.format(safe=SAFE, commands="\n".join(lines), cases="\n".join(cases), options=" \\\n".join(given))


def _offered(command: str) -> list[str]:
    if command == "wait":
        return [*CONDITIONS, *STATES]
    return words_of(command)


def _zsh_option(name: str, words: str, takes: bool) -> str:
    text = _quoted(words).replace("[", "(").replace("]", ")").replace(":", "\\:")
    value = ":file:_files" if name in ("-f", "--secret-file") else ":value: "
    return f"{name}[{text}]{value if takes else ''}"


def _quoted(text: str) -> str:
    return text.replace("'", "").replace("`", "")


# --- manual pages -------------------------------------------------------------------------------


def roff(text: str, wrap: bool = True) -> str:
    """Text as roff, in short lines: nothing in it is a request or an escape."""
    text = textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) if wrap else text
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.splitlines())


def page(name: str, number: int, what: str, body: list[str]) -> str:
    """A whole page."""
    title = f'.TH {name.upper()} {number} {DATE} "Koi {__version__}" "Koi"'
    head = ['.\\" made by docs/make.py', title, ".SH NAME", f"{roff(name)} \\- {roff(what)}"]
    return "\n".join([*head, *body]) + "\n"


def heading(title: str, *paragraphs: str) -> list[str]:
    """A section of paragraphs."""
    found = [f".SH {title}"]
    for number, text in enumerate(paragraphs):
        found += ([".PP"] if number else []) + [roff(text)]
    return found


def listing(title: str, entries: list[tuple[str, str]]) -> list[str]:
    """A section of words, each with what it is."""
    found = [f".SH {title}"]
    for word, words in entries:
        found += [".TP", f"\\fB{roff(word)}\\fR", roff(words or "see above")]
    return found


def synopsis(lines: list[str], program: str) -> list[str]:
    """The section SYNOPSIS."""
    found = [".SH SYNOPSIS", ".nf"]
    return [*found, *(f"\\fB{program}\\fR {roff(line, wrap=False)}" for line in lines), ".fi"]


EXAMPLES = [
    ("koi status", "how the cluster is; the first sentence answers"),
    ("koi promote b --reason \"a gets new memory\"", "make b the master, and keep with it why"),
    ("koi promote b --dry-run", "say what that would do, and change nothing"),
    ("koi wait master --timeout 30", "in a script: go on once there is a master; exit code 3 after 30 s"),
    ("koi maintenance on", "freeze the cluster before an upgrade"),
    ("koi --json why", "the last changes, for a program"),
    ("koi status --check", "one line and an exit code for Nagios and its kind"),
]
FILES = [
    ("/etc/koi/koi.conf", "the configuration, see `koi.conf(5)`; else ./koi.conf"),
    ("/etc/koi/password", "the cluster password, readable by its owner only"),
    ("/etc/koi/services", "the services: a folder of scripts each"),
    ("/var/lib/koi", "`elector.json` (votes and ledger), `node.json` (stopped by hand), `failures.json`, `journal.jsonl`"),
    ("/run/koi", "`koinode.pid`, `koinode.lock`, `tree.json`, `lease` (until when the node may be master), `koi.conf.good` "
     "(the last good copy of the configuration, readable by its owner only)"),
]
KOI = (
    "koi talks to any node of a cluster and is redirected to the one that can answer. Commands that change something wait until "
    "the effect is there and say what happened; a refusal says why and what to do."
)
KOINODE = (
    "koinode runs one node of a cluster that keeps one instance of some software active. Its elector votes for leaders and "
    "masters; its runner starts the services, and promotes them while a majority of electors stands for it."
)
TREE = (
    "It is a tree of processes: root, elector, runner, and a worker for each service. Root replaces any of the others; when root "
    "ends, the workers demote and stop their services."
)
SERVICES = (
    "A service is a folder `[NN-]name` under `service.folder` with any of the executables start, stop, promote, demote, status "
    "and failed, or `run` for a program that stays in the foreground; or one executable that is called with the action. NN is "
    "the priority: start and promote go up, stop and demote go down. Exit code 0 is success. `status` may also exit with 90 "
    "(promoted), 91 (running), 92 (stopped) or 93 (running, not ready to be promoted). Scripts find KOI_EPOCH, KOI_IS_PROMOTED, "
    "KOI_STATE, KOI_SERVICE, KOI_ACTION, KOI_NODE, KOI_MASTER, KOI_CLUSTER_ID, KOI_SERVICE_DIR and KOI_SHARE (the folder of "
    "koi-service.sh) in their environment, `failed` also KOI_FAILED_SERVICE."
)


def paragraphs(text: str, start: str) -> list[str]:
    """What stands behind the sections of a docopt text, from this word on."""
    rest = text[text.index(start):]
    return [" ".join(part.split()) for part in rest.strip().split("\n\n")]


def koi_page() -> str:
    """koi(1)."""
    text = cli.__doc__ or ""
    environment = [
        ("KOI_SECRET", "the cluster password, in the place of the configuration's"), ("NO_COLOR", "no colour on terminals"),
    ]
    return page("koi", 1, "look at a Koi cluster and change it", [
        *synopsis(usages(text, "koi"), "koi"),
        *heading("DESCRIPTION", KOI),
        *listing("COMMANDS", described(text, "Commands")), *listing("OPTIONS", described(text, "Options")),
        *heading("EXIT CODES", *paragraphs(text, "Exit codes:")), *listing("ENVIRONMENT", environment),
        *listing("FILES", FILES[:2]), *listing("EXAMPLES", EXAMPLES),
        *heading("SEE ALSO", "koinode(8), koi.conf(5)"),
    ])


def koinode_page() -> str:
    """koinode(8)."""
    text = node.__doc__ or ""
    return page("koinode", 8, "the daemon of a Koi node", [
        *synopsis(usages(text, "koinode"), "koinode"),
        *heading("DESCRIPTION", KOINODE, TREE),
        *listing("OPTIONS", described(text, "Options")), *heading("SERVICES", SERVICES),
        *heading("SIGNALS AND EXIT CODES", *paragraphs(text, "SIGTERM")), *listing("FILES", FILES),
        *heading("SEE ALSO", "koi(1), koi.conf(5)"),
    ])


def conf_page() -> str:
    """koi.conf(5), from conf/koi.conf."""
    body, comment, name = [], [], ""
    intro: list[str] = []
    for line in (TOP / "conf/koi.conf").read_text(encoding="utf-8").splitlines():
        if line.startswith(("# ", "  # ")):
            comment.append(line.strip()[2:])
        elif match := re.fullmatch(r"([a-z]+):", line):
            name = match[1]
            body += [f".SH SECTION {name}", *([roff(" ".join(comment))] if comment else [])]
            comment = []
        elif match := re.fullmatch(r"  #([a-z_]+): (.*)", line):
            body += [".TP", f"\\fB{name}.{match[1]}\\fR (default: {roff(match[2])})", *_comment(comment)]
            comment = []
        elif comment and not name and line in ("#", ""):
            intro.append(" ".join(comment))
            comment = []
    return page("koi.conf", 5, "configuration of a Koi node", [
        *heading("DESCRIPTION", *intro), *body, *listing("FILES", FILES[:3]), *heading("SEE ALSO", "koi(1), koinode(8)"),
    ])


def _comment(lines: list[str]) -> list[str]:
    """A comment; what is indented more in it is an example."""
    found: list[str] = []
    for example, part in itertools.groupby(lines, key=lambda line: line.startswith("    ")):
        if example:
            found += [".RS", ".nf", *(roff(line[4:], wrap=False) for line in part), ".fi", ".RE"]
        else:
            found.append(roff(" ".join(part)))
    return found


# --- files --------------------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """Every file and its content."""
    return {
        DOCS / "man/koi.1": koi_page(), DOCS / "man/koinode.8": koinode_page(), DOCS / "man/koi.conf.5": conf_page(),
        DOCS / "completion/koi": bash(), DOCS / "completion/_koi": zsh(),
    }


def main() -> int:
    """Writes the files, or says which are out of step."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        print("\n".join(f"{path} is out of step; run: python docs/make.py" for path in stale), end="\n" if stale else "")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files()[path], encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
