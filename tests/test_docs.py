"""The READMEs against what is there: commands, options, keys, files, links. Each test names what differs and where."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_lines import CLI, options_of, wrong_with
from key_reference import README as KEY_README
from key_reference import reference, written
from readmes import ROOT, Command, Readme, set_keys

from search.config.space_parser import parse_space
from search.config.sweep_config import SweepConfig
from vaegan_core.config.trial import TrialConfig
from vaegan_core.problems import key_names
from vaegan_core.strict_yaml import parse_yaml

REQUIRED = (
    "README.md",
    "search/README.md",
    "search/sweeps/README.md",
    "search/tracking/README.md",
    "search/cluster/README.md",
    "vaegan_core/README.md",
    "vaegan_core/data/README.md",
    "tests/README.md",
    "tests/benchmarks/README.md",
)
WITH_A_MAP = (
    "search/README.md",
    "search/tracking/README.md",
    "search/cluster/README.md",
    "vaegan_core/README.md",
    "vaegan_core/data/README.md",
    "tests/benchmarks/README.md",
)
"""Their maps name every .py file below their folder, but those of folders with a map of their own."""
LONGEST_README = 8_000
CHOSEN_ONCE = {"preset", "presets"}
"""Keys of a sweep's file that are used up when it is read."""
NOT_KEYS = ("tags.", "vaegan.")
"""Beginnings of dotted words that are MLflow's: its search language, and our tags."""
FILE_ENDING = re.compile(
    r"\.(py|yaml|yml|md|txt|db|diff|json|jsonl|html|j2|png|safetensors|toml|gz|log|lock|npy|pth|parquet)$"
)

READMES = [Readme(name) for name in REQUIRED if (ROOT / name).is_file()]


def each(readmes: Iterable[Readme] = READMES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("readme", readmes, ids=lambda readme: readme.name)


def fail_with(problems: Iterable[str]) -> None:
    lines = sorted(set(problems))
    assert not lines, "\n" + "\n".join(lines)


# --- The files --------------------------------------------------------------------------------------------------------


def test_all_of_them_are_there() -> None:
    assert [name for name in REQUIRED if not (ROOT / name).is_file()] == []


def test_the_first_one_is_short() -> None:
    size = len((ROOT / "README.md").read_bytes())
    assert size <= LONGEST_README, f"README.md has {size} bytes; move what is long to the folders' READMEs"


def test_the_first_one_gives_the_two_commands() -> None:
    shown = {" ".join(command.words) for command in Readme("README.md").commands if command.whole}
    assert {"make sweep", "make test"} <= shown


@each()
def test_links_lead_somewhere(readme: Readme) -> None:
    fail_with(f"{readme.name}: {link} {why}" for link in readme.links if (why := _broken(readme, link)))


def _broken(readme: Readme, link: str) -> str:
    if link.startswith(("http://", "https://")):
        return ""
    target, _, anchor = link.partition("#")
    path = (readme.path.parent / target).resolve() if target else readme.path
    name = path.relative_to(ROOT).as_posix()
    if not path.exists():
        return "is not there"
    return "has no such heading" if anchor and anchor not in Readme(name).anchors else ""


@each()
def test_files_that_are_named_are_there(readme: Readme) -> None:
    """Paths with a folder in them, from the README's folder or from the repository's root."""
    paths = (span for span in readme.spans if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", span))
    checked = (path for path in paths if FILE_ENDING.search(path) or path.endswith("/"))
    fail_with(
        f"{readme.name} names {path}, which is not there"
        for path in checked
        if not path.startswith(("runs/", "clips/", "photos/", "frames/", "sweeps/NAME/", "trials/"))
        and not any((base / path).exists() for base in (ROOT, readme.path.parent))
    )


@pytest.mark.parametrize("name", WITH_A_MAP)
def test_maps_name_every_file_once(name: str) -> None:
    mapped, there = Readme(name).map, set(_files_below(name))
    fail_with(
        [
            *(f"{name} has no line for {file}" for file in there - set(mapped)),
            *(f"{name} has a line for {file}, which is not there" for file in set(mapped) - there),
            *(f"{name} has two lines for {file}" for file in mapped if mapped.count(file) > 1),
        ]
    )


def _files_below(name: str) -> Iterator[str]:
    folder = (ROOT / name).parent
    others = [(ROOT / other).parent for other in WITH_A_MAP if other != name and (ROOT / other).is_file()]
    apart = [other for other in others if folder in other.parents]
    for path in folder.rglob("*.py"):
        if path.name != "__init__.py" and not any(other in path.parents for other in apart):
            yield path.relative_to(folder).as_posix()


def test_the_walk_of_a_trial_never_goes_back_to_a_folder() -> None:
    steps = re.findall(r"^\d+\. (.*(?:\n   .*)*)", Readme("search/README.md").section("The walk of one trial"), re.M)
    files = [re.findall(r"\]\(([\w/]+\.py)\)", step) for step in steps]
    assert len(steps) == 10
    assert all(len(named) == 1 for named in files), f"each step names one file: {files}"
    folders = [str(Path(named[0]).parent) for named in files]
    visits = [folders[0], *(new for old, new in pairwise(folders) if old != new)]
    assert len(visits) == len(set(visits)), f"a folder is visited twice: {visits}"


# --- Commands ---------------------------------------------------------------------------------------------------------


def _commands(command: Any = CLI, path: tuple[str, ...] = ("vaegan",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words it is called by."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


@pytest.mark.parametrize(("name", "command"), [*_commands()], ids=[name for name, _ in _commands()])
def test_every_command_and_option_is_described(name: str, command: Any) -> None:
    """In a list item or table row that begins with the command, and has its options in code."""
    entries = [entry for readme in READMES for entry in readme.entries if re.match(rf"[-|] `{name}(?=[ `])", entry)]
    assert entries, f"no README has a list item or table row that begins with `{name} …`"
    spans = " ".join(re.findall(r"`([^`]+)`", " ".join(entries)))
    fail_with(
        f"no list item about `{name}` mentions {option}"
        for option in options_of(command)
        if not re.search(rf"(?<!\S){option}(?![\w-])", spans)
    )


def test_options_of_vaegan_itself_are_described() -> None:
    spans = {span for readme in READMES for span in readme.spans}
    fail_with(f"no README mentions `vaegan {o}`" for o in options_of(CLI) if f"vaegan {o}" not in spans)


@each()
def test_commands_that_are_shown_work(readme: Readme) -> None:
    fail_with(f"{readme.name}: `{c.text}`: {why}" for c in readme.commands if c.words and (why := _wrong_with(c)))


def _wrong_with(command: Command) -> str:
    program, *words = command.words
    if program == "vaegan":
        return wrong_with(words, command.whole) or _wrong_keys(words)
    if program == "make":
        unknown = [word for word in words if not re.search(rf"^{re.escape(word)}:", _makefile(), re.MULTILINE)]
        return f"the Makefile has no {', '.join(unknown)}" if unknown else ""
    if program in ("python", "pytest"):
        missing = [word for word in words if "/" in word and not (ROOT / word.partition("::")[0]).exists()]
        return f"there is no {', '.join(missing)}" if missing else _wrong_options_of_script(words)
    if program.startswith("-"):
        known = {option for _, each in _commands() for option in options_of(each)} | _options_of_benchmarks()
        return _wrong_keys(command.words) if program in known | {"--help", "--version"} else "no command has it"
    return ""


def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


def _wrong_keys(words: list[str]) -> str:
    return ", ".join(f"there is no key {key}" for key in set_keys(words) if key != "KEY" and not _is_key(key))


def _wrong_options_of_script(words: list[str]) -> str:
    script = next((ROOT / word for word in words if word.endswith(".py")), None)
    if script is None or "pytest" in words or "benchmarks" not in script.parts:
        return ""
    known = _options_of_script(script)
    return ", ".join(f"{script.name} has no option {word}" for word in words if word[:2] == "--" and word not in known)


def _options_of_script(path: Path) -> set[str]:
    """Of argparse: first arguments of `add_argument`."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "add_argument"
        and isinstance(call.args[0], ast.Constant)
    }


def _options_of_benchmarks() -> set[str]:
    return set().union(*(_options_of_script(path) for path in (ROOT / "tests" / "benchmarks").glob("*.py")))


# --- Keys -------------------------------------------------------------------------------------------------------------


KEYS = CHOSEN_ONCE.union(*map(key_names, (TrialConfig, SweepConfig)))
"""Of trials and sweeps by dotted name, mappings among them."""
PACKAGES = {
    re.split(r"[>=<\[;]", requirement)[0].replace("-", "_")
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
} | {"search", "vaegan_core", "tests"}


def _is_key(key: str) -> bool:
    key = re.sub(r"^(base|space)\.(?=\w)", "", key)
    return key in KEYS or key.startswith("points.")


@each()
def test_keys_that_are_named_exist(readme: Readme) -> None:
    """Every dotted lower-case word in code that is no file, no module and not MLflow's."""
    words = (re.sub(r"[=:].*| .*", "", span) for span in readme.spans)
    dotted = (word for word in words if re.fullmatch(r"[a-z_]\w*(\.[a-z_]\w*)+", word))
    fail_with(
        f"{readme.name} names {word}, which is no key of a trial or a sweep"
        for word in dotted
        if not (FILE_ENDING.search(word) or word.startswith(NOT_KEYS) or word.partition(".")[0] in PACKAGES)
        and not _is_key(word)
    )


@each()
def test_yaml_that_is_shown_is_right(readme: Readme) -> None:
    """A block that begins with a key of a sweep, or else of a trial; what stands in a space is parsed as one."""
    problems: list[str] = []
    for block in readme.blocks:
        if block.language != "yaml":
            continue
        data = parse_yaml(block.text, readme.name)
        problems += [f"{readme.name}: {key} is no key" for key in _dotted(data) if not _is_key(key)]
        problems += [f"{readme.name}: {path}: {why}" for path, why in parse_space(data.get("space", {}))[1]]
    fail_with(problems)


def _dotted(data: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of everything in a file but in spaces, which have a test of their own; points and presets hold
    dotted names themselves."""
    for key, value in data.items():
        if not prefix and key == "space":
            continue
        if not prefix and key == "questions":
            for question in value.values():
                yield from (f"questions.{part}" for part in question)
        elif not prefix and key in ("points", "presets"):
            for named in value.values():
                yield from named
        elif isinstance(value, dict) and value:
            yield from _dotted(value, "" if not prefix and key == "base" else f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_the_reference_of_all_keys_is_what_the_models_say() -> None:
    now, then = reference().splitlines(), written().splitlines()
    where = KEY_README.relative_to(ROOT).as_posix()
    fail_with(
        [
            *(f"{where} has no longer right: {line}" for line in then if line not in now),
            *(
                f"{where} should have, by `python tests/support/key_reference.py`: {line}"
                for line in now
                if line not in then
            ),
        ]
    )
    assert then == now, f"{where} has the keys in another order; run python tests/support/key_reference.py"


# --- Wording ----------------------------------------------------------------------------------------------------------

TEXTS = (".py", ".md", ".yaml", ".j2")
TRANSLATED = re.compile(r"\b(?:[Ll]acks?|[Ss]o many|is none of|(?:is|are) gone)\b|\"\"\"Of ")
"""What reads as if it had been translated."""


def test_no_text_reads_translated() -> None:
    folders = (ROOT / "search", ROOT / "vaegan_core", ROOT / "tests")
    ours = [ROOT / "README.md", *(path for folder in folders for path in folder.rglob("*") if path.suffix in TEXTS)]
    assert len(ours) >= 200
    fail_with(
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in ours
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if TRANSLATED.search(line)
    )
