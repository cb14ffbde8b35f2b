"""Whatever may happen to imports over one ledger, in any order; what must be true is checked after every step."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fakes import LOST, LOST_BEFORE, LOST_LATE, created, error
from tests.samples_of import row, sid
from tests.test_pipeline import Bench
from worker.config import Doubt as DoubtSettings
from worker.ledger import Decision, Settle
from worker.ledger.opening import open_ledger
from worker.ledger.view import COLUMNS, View
from worker.model import Answer, Cause, Created, Exit, Failed, Listed, Row, Settlement

CHANNELS = st.integers(0, 4)
CALLS = st.integers(0, 25)
CROWDED = "made beside somebody else's, and lost"
ANSWERS: dict[str, Answer] = {
    "made, and lost": LOST,
    CROWDED: LOST,
    "lost": LOST_BEFORE,
    "made late, and lost": LOST_LATE,
    "rejected": error(400, 20001),
    "closed": error(400, 45354),
    "a server's error": error(500, 20500),
    "throttled": error(429, 20429, 0.0),
    "a member": error(409, 50433),
}
ECHOES: dict[str, Callable[[Listed], Listed]] = {
    "plain": lambda one: one,
    "without type": lambda one: one._replace(type=None),
    "with somebody's routing": lambda one: one._replace(routing={"task_sid": "WT1", "more": "x"}),
}


class Imports(RuleBasedStateMachine):
    """One file that grows, one ledger, one service: runs that end, are stopped or cut, and people who come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="never-twice-")
        self.bench = Bench(Path(self.folder.name) / "imports.db")
        self.bench.service.respond = self.respond
        self.rows: list[Row] = []
        self.script: dict[str, list[str]] = {}
        self.strangers = 0

    def teardown(self) -> None:
        """Remove the ledger."""
        self.folder.cleanup()

    def respond(self, wanted: Row, attempt: int) -> Answer:
        """Answer by the row's script, then with success; who is a member already has the row made by somebody."""
        said = self.script[wanted.key]
        if attempt > len(said):
            return created(wanted)
        if said[attempt - 1] == CROWDED:
            self.add_stranger(wanted.channel_sid)
        return ANSWERS[said[attempt - 1]]

    def add_stranger(self, channel_sid: str) -> None:
        """Let another program add a participant."""
        self.strangers += 1
        listed = Listed(sid("UT", f"stranger {self.strangers}"), "customer", None)
        self.bench.service.present.setdefault(channel_sid, []).append(listed)

    def exported(self) -> dict[str, dict[str, object]]:
        """Return key → row as it would be exported."""
        if not self.bench.path.exists():
            return {}
        with View(self.bench.path) as view:
            rows = [dict(zip(COLUMNS, found, strict=True)) for found in view.export()]
        return {str(found["key"]): found for found in rows}

    # ---- what may happen

    @initialize(echo=st.sampled_from(sorted(ECHOES)), baseline=st.booleans(), present=st.sets(CHANNELS))
    def begin(self, echo: str, baseline: bool, present: set[int]) -> None:
        """Channels may have participants before, and the list may say more or less of each."""
        self.bench.doubt = DoubtSettings(settle_seconds=0.002, baseline=baseline)
        self.bench.service.echo = ECHOES[echo]
        for channel in present:
            self.somebody_joins(channel)

    @rule(channel=CHANNELS, said=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=3))
    def a_row_more(self, channel: int, said: list[str]) -> None:
        """The file gets another row; said: what its attempts will meet."""
        one = row(100 + len(self.rows), channel)
        self.script[one.key] = said
        self.rows.append(one)

    @rule(channel=CHANNELS)
    def somebody_joins(self, channel: int) -> None:
        """Another program adds a participant; what if a row is in doubt there is where the guarantee ends."""
        where = row(0, channel).channel_sid
        if any(one["channel_sid"] == where and one["state"] in {"started", "in_doubt"}
               for one in self.exported().values()):  # fmt: skip
            return
        self.add_stranger(where)

    @rule(concurrency=st.integers(1, 5), queue_rows=st.integers(1, 8))
    def run_to_the_end(self, concurrency: int, queue_rows: int) -> None:
        """Nobody disturbs it, so every row has to come somewhere."""
        anyio.run(partial(self.bench.run, self.rows, concurrency=concurrency, queue_rows=queue_rows))
        tally = self.bench.tally
        assert tally.unread == 0
        # a member whose sid nobody knows closes its channel as a doubt does
        assert tally.not_sent == 0 or tally.in_doubt or tally.earlier or tally.existed, "nothing waits without a reason"

    @rule(calls=CALLS, concurrency=st.integers(1, 5), queue_rows=st.integers(1, 8))
    def run_and_cut(self, calls: int, concurrency: int, queue_rows: int) -> None:
        """It is cut off after so many calls of the service."""

        async def run() -> None:
            cut = anyio.CancelScope()  # entered by the run, around nothing but its pipeline
            await self.run_beside(calls, cut.cancel, concurrency=concurrency, queue_rows=queue_rows, cut=cut)

        anyio.run(run)

    @rule(calls=CALLS, concurrency=st.integers(1, 5))
    def run_and_drain(self, calls: int, concurrency: int) -> None:
        """It is asked to stop after so many calls of the service."""

        def drain() -> None:
            self.bench.stop.drain(Cause(Exit.SIGTERM, "stopped"))

        anyio.run(partial(self.run_beside, calls, drain, concurrency=concurrency))

    async def run_beside(self, calls: int, then: Callable[[], object], **options: Any) -> None:
        """Run, and do something else once the service has been called so often."""
        service = self.bench.service
        end = service.lists.total() + service.attempts.total() + calls

        async def wait() -> None:
            while service.lists.total() + service.attempts.total() < end:
                await anyio.lowlevel.checkpoint()
            then()

        async with anyio.create_task_group() as aside:
            aside.start_soon(wait)
            await self.bench.run(self.rows, **options)
            aside.cancel_scope.cancel()

    @rule()
    def a_person_decides(self) -> None:
        """Whoever looks into Flex sees the truth about every row in doubt."""
        if not self.bench.path.exists():
            return
        with View(self.bench.path) as view:
            doubts = view.in_doubt()
        with self.ledger_open() as write:
            for doubt in doubts:
                made = sid("UT", doubt.key) if self.bench.service.made[doubt.key] else None
                outcome = Created(made) if made else Failed("not_created", "a person says so")
                settle = Settle(doubt.number, Settlement(doubt.key, outcome, ends_doubt=True))
                write([Decision(doubt.number, "ann", "created" if made else "not_created", made), settle])

    @contextmanager
    def ledger_open(self) -> Iterator[Callable[..., object]]:
        """Open the ledger as `resolve` does."""
        with contextlib.closing(open_ledger(self.bench.path)) as ledger:
            ledger.start_run("resolve")
            yield ledger.write

    # ---- what must be true

    @invariant()
    def no_row_was_made_twice(self) -> None:
        """Nor were two under way in one channel."""
        assert set(self.bench.service.made.values()) <= {1}
        assert self.bench.service.most_in_channel <= 1

    @invariant()
    def the_ledger_tells_the_truth(self) -> None:
        """What it calls created was made, and has its own sid; what it calls anything but in doubt was not made."""
        states: dict[str, set[str]] = {"created": set(), "in_doubt": set(), "started": set()}
        for key, one in self.exported().items():
            states.setdefault(str(one["state"]), set()).add(key)
            if one["state"] == "created":
                assert one["sid"] == sid("UT", key), "a sid went to another row"
        made = set(self.bench.service.made)
        assert states["created"] <= made
        assert made <= states["created"] | states["in_doubt"] | states["started"]

    @invariant()
    def the_identity_holds(self) -> None:
        """As the run counted it, and as the ledger did."""
        assert self.bench.adds_up()


TestImports = pytest.mark.timeout(300)(Imports.TestCase)
TestImports.settings = settings(
    max_examples=60,
    stateful_step_count=15,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.reuse, Phase.generate],  # every step is a real import: making a failure small would take minutes
    suppress_health_check=list(HealthCheck),
)
