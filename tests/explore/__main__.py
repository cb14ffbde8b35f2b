"""`make explore`: every short story of one channel, the shortest first.

With all assumptions no promise may break, and complete runs must agree with the explorer. Without any one of the
assumptions a promise must break; the shortest story shows how. Exits 1 when one of the three fails.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.explore.assumption import ALL, Assumption
from tests.explore.event import Model
from tests.explore.explorer import SCOPES, Exploration, explore, scope_without
from tests.explore.promise import broken_promise
from tests.explore.replay import differences, random_story

STORY_EVENTS = 25


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [one.name.lower() for one in Assumption]
    parser = argparse.ArgumentParser(prog="make explore ARGS=", description="Explore every short story of one channel.")
    parser.add_argument("--seconds", type=float, default=120, help="spent on the stories with all assumptions (120)")
    parser.add_argument("--stories", type=int, default=200, help="random stories to replay with complete runs (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random stories (1)")
    parser.add_argument(
        "--without", nargs="*", choices=names, default=names, help="only explore without each of these assumptions"
    )
    return parser.parse_args(arguments)


def tell(found: Exploration) -> None:
    """Print a story as numbered lines, and the promise that it breaks."""
    for number, (event, _) in enumerate(found.story, 1):
        say(f"  {number:2}. {event.words}")
    if found.problem:
        say(f"      So {found.problem}.")


def explore_all(seconds: float) -> int:
    """Explore with all assumptions; return how many promises broke."""
    problems = states = 0
    say(f"  {'with all assumptions':75} {'states':>9} {'events':>11} {'depth':>5} {'seconds':>7}")
    for scope in SCOPES:
        found = explore(scope, seconds=seconds / len(SCOPES))
        states += found.states
        problems += bool(found.problem)
        left = ", ".join(f"{name} {count}" for name, count in scope.left._asdict().items() if count)
        more = ", with routing, without baselines" if scope.routed else ""
        what = f"{scope.rows} row{'s' * (scope.rows > 1)}, {left}{more}"
        say(f"  {what:75} {found.states:9,} {found.told:11,} {found.depth:5} {found.seconds:7.0f}")
        tell(found)
    say(f"{states:,} states, {problems or 'no'} promise{'s' * (problems > 1)} broken\n")
    return problems


def replay_some(stories: int, seed: int) -> int:
    """Replay random stories with complete runs; return how many broke a promise or ended otherwise."""
    dice, problems = Random(seed), 0
    with tempfile.TemporaryDirectory(prefix="explore-") as name:
        for place, scope in enumerate(SCOPES):
            model = Model(scope, ALL)
            for number in range(stories // len(SCOPES)):
                story = random_story(model, dice, STORY_EVENTS)
                broken = (broken_promise(state.world, state.held, model.rows, model.names) for _, state in story)
                found = differences(Path(name) / f"{place}-{number}.db", model, story) + list(filter(None, broken))
                problems += bool(found)
                for line in ([event.words for event, _ in story] if found else []) + found:
                    say(f"  {line}")
            model.close()
    say(f"{stories} random stories replayed with complete runs: {problems or 'no'} differences\n")
    return problems


def remove_each(names: Sequence[str]) -> int:
    """Explore without each of these assumptions; return how many are not needed."""
    problems = 0
    for assumption in (one for one in Assumption if one.name.lower() in names):
        found = explore(scope_without(assumption), ALL - {assumption}, seconds=120)
        say(f"without {assumption.name.lower()}: {assumption.value}")
        tell(found)
        problems += not found.problem
        say(f"      {found.states:,} states in {found.seconds:.1f} s{'' if found.problem else ': nothing breaks'}\n")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore, and return 1 when something is not as it must be."""
    options = parse(arguments)
    problems = 0
    if len(options.without) == len(Assumption):
        problems = explore_all(options.seconds) + replay_some(options.stories, options.seed)
    problems += remove_each(options.without)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
