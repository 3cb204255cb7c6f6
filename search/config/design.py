"""The trials of a block: which questions share them, what is drawn for them, and in which order they run.

Questions of two levels share trials by a fraction of resolution IV of all combinations of their levels (Box, Hunter &
Hunter 2005, ch. 6), so that no effect is mixed up with another one or with how two of them act together. Each block
turns the signs of its columns around at random, so that what is left, how three act together, averages out. A question
with more levels, or one `across` other settings, has trials of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.config.distributions import at_quantile, near
from search.config.questions import BlocksConfig, QuestionConfig, changes, covered
from search.config.space import Branch, Fixed, Node, Space, build_trial
from vaegan_core.problems import ConfigError, Problem

FIRST_BLOCK_SEED = 2_000_000
"""The trials of the first block have this seed, plus that of the sweep's base."""
DRAWS_TRIED = 100
"""Draws for a block until all its trials can be built."""
PAIR_DRAWS = 4
"""Draws with which it is tried whether two questions can share trials."""


@dataclass(frozen=True)
class Setup:
    """What the trials of every block begin with."""

    base: Mapping[str, Any]
    space: Space
    blocks: BlocksConfig

    def draw(self, block: int, attempt: int, changed: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the space but for what is `changed`: each parameter is drawn once per block, from its prior."""
        values = self.space.assign(self._chooser(block, attempt, changed))
        return {name: value for name, value in values.items() if not covered(name, changed)}

    def _chooser(self, block: int, attempt: int, changed: Mapping[str, Any]) -> Any:
        priors = self.space.priors()

        def choose(name: str, distribution: BaseDistribution) -> Any:
            if name in changed:
                return changed[name]
            u = Random(f"block {self.blocks.seed} {block} {attempt} {name}").random()
            if covered(name, changed) and isinstance(distribution, CategoricalDistribution):
                return distribution.choices[0]  # of a branch that is replaced as a whole
            if name in priors:
                return near(distribution, priors[name].value, priors[name].sure, u)
            return at_quantile(distribution, u)

        return choose

    def problems(self, block: int, attempt: int, changed: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with a trial of these changes in the space's draw for a block."""
        try:
            values = self.draw(block, attempt, changed)
        except KeyError:
            return [("", "has a level that is not among the options of the space's branch")]
        try:
            build_trial(self.base, self.values(block, values, changed))
        except ConfigError as error:
            return error.problems
        return []

    def values(self, block: int, drawn: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
        """Everything in which a trial of a block differs from the base, by dotted name."""
        train = self.base.get("train")
        given = train.get("seed", 0) if isinstance(train, Mapping) else 0
        seed = FIRST_BLOCK_SEED + (given if isinstance(given, int) else 0) + block
        steps = {"train.steps": self.blocks.steps} if self.blocks.steps else {}
        return {**drawn, **changed, "train.seed": seed, "train.seeding": "separate", **steps}


@dataclass(frozen=True)
class BlockTrial:
    """One trial of a block."""

    block: int
    levels: dict[str, int]
    """By question; 0 is the reference."""
    across: dict[str, float]
    """By question, of those that have one."""
    params: dict[str, Any]
    """What was drawn for the block and what the questions change, by dotted name."""
    values: dict[str, Any]
    """Everything in which it differs from the base."""


@dataclass(frozen=True)
class Group:
    """Questions that share their trials, or one that has its own."""

    setup: Setup
    questions: Mapping[str, QuestionConfig]

    @property
    def size(self) -> int:
        """Trials of a block."""
        if len(self.questions) > 1:
            return len(fraction(len(self.questions)))
        return sum(len(list(changes(question))) for question in self.questions.values())

    def trials(self, block: int) -> list[BlockTrial]:
        """The trials of a block in the order in which they run, which is random."""
        random = Random(f"order {self.setup.blocks.seed} {block} {' '.join(self.questions)}")
        cells = list(self._cells(random))
        random.shuffle(cells)
        for attempt in range(DRAWS_TRIED):
            if not any(self.setup.problems(block, attempt, changed) for _, _, changed in cells):
                return [self._trial(block, attempt, *cell) for cell in cells]
        raise ValueError(
            f"no draw of the space gives the questions {', '.join(self.questions)} a block whose trials can all be "
            f"built ({DRAWS_TRIED} were tried); narrow the space, or ask them with alone: true"
        )

    def _trial(
        self, block: int, attempt: int, levels: dict[str, int], across: dict[str, float], changed: dict[str, Any]
    ) -> BlockTrial:
        drawn = self.setup.draw(block, attempt, changed)
        searched = self.setup.space.parameters()
        params = {name: value for name, value in drawn.items() if name in searched} | changed
        return BlockTrial(block, levels, across, params, self.setup.values(block, drawn, changed))

    def _cells(self, random: Random) -> Iterator[tuple[dict[str, int], dict[str, float], dict[str, Any]]]:
        """(levels, across, all that is changed) of each trial of a block."""
        if len(self.questions) == 1:
            [(name, question)] = self.questions.items()
            for level, across, changed in changes(question):
                yield {name: level}, {name: next(iter(across.values()))} if across else {}, changed
            return
        flips = [random.choice((0, 1)) for _ in self.questions]
        for row in fraction(len(self.questions)):
            levels = {name: level ^ flip for name, level, flip in zip(self.questions, row, flips, strict=True)}
            yield levels, {}, self._at(levels)

    def _at(self, levels: Mapping[str, int]) -> dict[str, Any]:
        """What the questions change at their levels."""
        return {
            name: values[levels[question]]
            for question, config in self.questions.items()
            for name, values in config.factor.items()
        }

    @property
    def nuisances(self) -> list[str]:
        """Parameters of the space that may be drawn for a block."""
        drawn = {
            name
            for question in self.questions.values()
            for _, _, changed in changes(question)
            for name in _drawn(self.setup.space.nodes, changed)
        }
        given = [name for question in self.questions.values() for name in question.settings()]
        return [name for name in self.setup.space.parameters() if name in drawn and not covered(name, given)]


def _drawn(nodes: Iterable[Node], changed: Mapping[str, Any]) -> Iterator[str]:
    """Names of the parameters that may be drawn where something is changed."""
    for node in nodes:
        if isinstance(node, Fixed) or (covered(node.name, changed) and node.name not in changed):
            continue
        yield node.name
        if isinstance(node, Branch):
            chosen = [node.options[changed[node.name]]] if node.name in changed else node.options.values()
            for option in chosen:
                yield from _drawn(option, changed)


def fraction(factors: int) -> list[tuple[int, ...]]:
    """The levels (0 or 1) of two or more factors in each run of the smallest design of resolution IV at least.

    With m base factors, the columns are the products of an odd number of them: of three columns none is the product of
    the other two, so that effects of single factors are mixed up with those of three at the earliest (Box, Hunter &
    Hunter 2005, sec. 6.8). 2 factors take 4 runs, 3 and 4 take 8, 5 to 8 take 16.
    """
    base = 2
    while 2 ** (base - 1) < factors:
        base += 1
    words = [word for count in range(1, base + 1, 2) for word in combinations(range(base), count)][:factors]
    return [tuple(sum(run[index] for index in word) % 2 for word in words) for run in product((0, 1), repeat=base)]


def groups(setup: Setup, questions: Mapping[str, QuestionConfig]) -> list[Group]:
    """The questions by what they share: first those of two levels that can go together, in their order."""
    shared: dict[str, QuestionConfig] = {}
    own: list[dict[str, QuestionConfig]] = []
    for name, question in questions.items():
        if _may_share(question) and all(_go_together(setup, question, other) for other in shared.values()):
            shared[name] = question
        else:
            own.append({name: question})
    return [Group(setup, each) for each in ([shared] if shared else []) + own]


def _may_share(question: QuestionConfig) -> bool:
    return question.num_levels == 2 and not (question.across or question.crossed or question.alone)


def _go_together(setup: Setup, one: QuestionConfig, other: QuestionConfig) -> bool:
    """Whether neither question gives what the other does, and trials of all their levels can be built."""
    if any(one.covers(name) for name in other.settings()) or any(other.covers(name) for name in one.settings()):
        return False
    both = [
        {name: values[a] for name, values in one.factor.items()}
        | {name: values[b] for name, values in other.factor.items()}
        for a, b in product((0, 1), repeat=2)
    ]
    return any(not any(setup.problems(0, attempt, changed) for changed in both) for attempt in range(PAIR_DRAWS))


def problems_of_question(setup: Setup, name: str, question: QuestionConfig) -> Iterator[Problem]:
    """What is wrong with a question's levels, where no draw of the space makes all of them valid trials."""
    cells = [changed for _, _, changed in changes(question)]
    first: Sequence[tuple[Mapping[str, Any], list[Problem]]] = ()
    for attempt in range(PAIR_DRAWS * 5):
        found = [(changed, setup.problems(0, attempt, changed)) for changed in cells]
        if not any(wrong for _, wrong in found):
            return
        first = first or found
    told: dict[str, str] = {}
    for changed, wrong in first:
        for path, message in wrong:
            among = f" (with {_in_words(changed)})" if len(changed) > 1 else ""
            told.setdefault(_where(name, question, path), message + among)
    yield from told.items()


def _where(name: str, question: QuestionConfig, path: str) -> str:
    """Where the YAML gives a trial's `path`: in the question, as far as it does."""
    for part in ("factor", "across", "crossed"):
        for setting in getattr(question, part):
            if path == setting or path.startswith(f"{setting}."):
                return f"questions.{name}.{part}.{setting}"
    return f"questions.{name}"


def _in_words(changed: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changed.items())
