"""Writing to a ledger in PostgreSQL: a group is a few statements over arrays, as each one is a round trip."""

from collections.abc import Sequence
from contextlib import suppress

from worker.errors import LedgerError
from worker.ledger import BASELINE_FIRST, KNOWN_SID, SID_KNOWN, Asked, Baseline, Entry, Finding, Intent, Known, Settle
from worker.ledger.attaching import BARRIERS
from worker.ledger.pgconnection import PostgresConnection, TakenMeanwhileError
from worker.ledger.tables import REMEMBERED_CHANNELS, Tables, channel_name, oldest, settled
from worker.ledger.transaction import guarded, milliseconds, storable
from worker.model import Created, Outcome, Row, State, comparable

Answers = list[int | Known | Asked | None]

_CHANNELS = """
INSERT INTO channels (channel_sid, interaction_sid)
SELECT * FROM unnest(%(channels)s::text[], %(interactions)s::text[])
ON CONFLICT (lower(channel_sid), lower(interaction_sid)) DO NOTHING
RETURNING id, channel_sid, interaction_sid
"""
_FOUND_CHANNELS = """
SELECT id, channels.channel_sid, channels.interaction_sid FROM channels
    JOIN unnest(%(channels)s::text[], %(interactions)s::text[]) AS given (channel, interaction)
    ON lower(channel_sid) = lower(channel) AND lower(interaction_sid) = lower(interaction)
"""
_INTENTS = f"""
WITH given AS (
    SELECT * FROM unnest(%(key)s::text[], %(fingerprint)s::bytea[], %(source)s::bigint[], %(line)s::bigint[],
        %(mark)s::bigint[], %(channel)s::bigint[], %(type)s::text[], %(record)s::bytea[], %(request)s::bytea[])
    WITH ORDINALITY AS given (key, fingerprint, source, line, mark, channel, type, record, request, place)
), taken AS (
    INSERT INTO rows (key, fingerprint, state, run_id, source_id, line, mark, channel_id, type, started_at)
    SELECT key, fingerprint, 'started', %(run)s, source, line, mark, channel, type, %(now)s FROM given ORDER BY place
    ON CONFLICT (key) DO UPDATE SET
        fingerprint = excluded.fingerprint, state = 'started', run_id = excluded.run_id,
        source_id = excluded.source_id, line = excluded.line, mark = excluded.mark, channel_id = excluded.channel_id,
        type = excluded.type, code = NULL, reason = NULL, http_status = NULL, request_id = NULL,
        started_at = excluded.started_at, settled_at = NULL
    WHERE rows.state NOT IN {BARRIERS} AND (%(again)s OR rows.run_id <> excluded.run_id)
    RETURNING id, key
), kept AS (
    INSERT INTO payloads (row_id, record, request)
    SELECT taken.id, record, request FROM taken JOIN given USING (key)
    ON CONFLICT (row_id) DO UPDATE SET record = excluded.record, request = excluded.request
)
SELECT key, id FROM taken
"""
_REFUSALS = f"""
SELECT key, fingerprint, state, source_id, line, run_id FROM rows
WHERE key = ANY(%(keys)s::text[]) AND (state IN {BARRIERS} OR run_id = %(run)s)
"""
_WITH_BASELINE = """
SELECT channel_id, taken_at FROM baselines
WHERE run_id = %(run)s AND channel_id = ANY(%(channels)s::bigint[]) AND taken_at <= %(now)s
"""
_SETTLE = """
WITH given AS (
    SELECT * FROM unnest(%(number)s::bigint[], %(key)s::text[], %(state)s::text[], %(sid)s::text[], %(code)s::text[],
        %(reason)s::text[], %(http_status)s::integer[], %(attempts)s::integer[], %(request_id)s::text[])
    AS given (number, key, state, sid, code, reason, http_status, attempts, request_id)
), judged AS (
    SELECT given.*, sid IS NOT NULL AND (
        EXISTS (SELECT 1 FROM rows AS other WHERE other.sid IS NOT NULL AND lower(other.sid) = lower(given.sid))
        OR EXISTS (SELECT 1 FROM closures WHERE lower(closures.sid) = lower(given.sid))
        OR EXISTS (SELECT 1 FROM baselines JOIN rows AS own USING (channel_id)
            WHERE own.id = given.number AND lower(baselines.sids) LIKE '%%"' || lower(given.sid) || '"%%')) AS known
    FROM given
), done AS (
    UPDATE rows SET state = CASE WHEN known THEN 'in_doubt' ELSE given.state END,
        sid = CASE WHEN known THEN NULL ELSE given.sid END,
        code = CASE WHEN known THEN %(known_code)s ELSE given.code END,
        reason = CASE WHEN known THEN %(known_reason)s ELSE given.reason END,
        http_status = coalesce(given.http_status, rows.http_status), attempts = rows.attempts + given.attempts,
        request_id = coalesce(given.request_id, rows.request_id), settled_at = %(now)s, reconciled = 0,
        run_id = %(run)s
    FROM judged AS given WHERE rows.id = given.number AND rows.key = given.key AND rows.state = 'started'
    RETURNING rows.id, rows.state, given.known
), dropped AS (
    DELETE FROM payloads USING done WHERE row_id = done.id AND done.state IN ('created', 'existed')
)
SELECT id, known FROM done
"""
_FINDINGS = """
INSERT INTO findings (run_id, source_id, line, kind, key, code, reason, record, detail, ref)
SELECT %(run)s, source, line, kind, key, code, reason, record, detail, ref
FROM unnest(%(source)s::bigint[], %(line)s::bigint[], %(kind)s::text[], %(key)s::text[], %(code)s::text[],
    %(reason)s::text[], %(record)s::bytea[], %(detail)s::text[], %(ref)s::text[])
    WITH ORDINALITY AS given (source, line, kind, key, code, reason, record, detail, ref, place)
ORDER BY place
RETURNING id
"""


class PostgresLedger(Tables):
    """The writing side of a ledger in PostgreSQL; see `worker.ledger.Ledger` for the contract."""

    _connection: PostgresConnection
    _again = False
    """Whether a row that failed may be sent once more in the same run."""

    def _check(self, *, soon: bool = False) -> None:
        """Whether the session still has its lock is what each statement shows: both end together."""

    def write(self, group: Sequence[Entry]) -> Answers:
        try:
            return self._write(group)
        except TakenMeanwhileError:  # another worker has recorded the same sid: now this one sees it
            return self._write(group)

    def _write(self, group: Sequence[Entry]) -> Answers:
        now = milliseconds()
        answers: Answers = [None] * len(group)
        try:
            with guarded(self._connection, self.path):
                batch = Batch()
                admitted = self._admitted(group, answers)
                for place, entry in admitted:
                    if not batch.takes(place, entry):
                        self._flush(batch, answers, now)
                        batch = Batch()
                        if not batch.takes(place, entry):
                            answers[place] = self._enter(entry, now)
                self._flush(batch, answers, now)
                self._follow_up(admitted, answers)
        except BaseException:
            self._channels.clear()  # their numbers may have been rolled back, and be given to others
            raise
        return answers

    def _admitted(self, group: Sequence[Entry], answers: Answers) -> list[tuple[int, Entry]]:
        """Return what is to be written, with its place in the group; the others are answered here."""
        del answers
        return list(enumerate(group))

    def _follow_up(self, written: Sequence[tuple[int, Entry]], answers: Answers) -> None:
        """Do what else belongs into the transaction, once everything is answered."""

    def _flush(self, batch: "Batch", answers: Answers, now: int) -> None:
        if batch.settled:
            self._settle_all(batch.settled, answers, now)
        if batch.findings:
            self._find_all(batch.findings)
        self._number_channels(batch.rows)
        for baseline in batch.baselines:
            self._enter(baseline, now)
        if batch.intents:
            self._intend_all(batch.intents, answers, now)

    def _number_channels(self, rows: Sequence[Row]) -> None:
        """Have the numbers of the rows' channels at hand."""
        written = {channel_name(row): (row.channel_sid, row.interaction_sid) for row in rows}
        names = [written[name] for name in written.keys() - self._channels.keys()]
        if not names:
            return
        if len(self._channels) >= REMEMBERED_CHANNELS:
            self._channels.clear()
        values = {"channels": [channel for channel, _ in names], "interactions": [inter for _, inter in names]}
        found = self._connection.batch(_CHANNELS, values)
        if len(found) < len(names):
            found = self._connection.batch(_FOUND_CHANNELS, values)
        self._channels.update({(comparable(one), comparable(other)): number for number, one, other in found})

    def _intend_all(self, intents: dict[int, Intent], answers: Answers, now: int) -> None:
        ready = self._with_baselines(intents, now)
        keys = {intent.row.key: place for place, intent in intents.items()}
        taken: dict[str, int] = {}
        if ready:
            rows = [intent.row for intent in ready]
            values = {
                "key": [row.key for row in rows],
                "fingerprint": [row.fingerprint for row in rows],
                "source": [row.source for row in rows],
                "line": [row.line for row in rows],
                "mark": [row.mark for row in rows],
                "channel": [self._channel(row) for row in rows],
                "type": [row.type for row in rows],
                "record": [row.text.encode() for row in rows],
                "request": [row.body for row in rows],
                "again": self._again,
                "run": self._run,
                "now": now,
            }
            taken = dict(self._connection.batch(_INTENTS, values))
        refused = {key for key in keys if key not in taken}
        known: dict[str, Known] = {}
        if refused:
            for key, fingerprint, state, source, line, run in self._connection.batch(
                _REFUSALS, {"keys": list(refused), "run": self._run}
            ):
                # a worker reads no input: what it did before, it did for another reason
                ours = run == self._run and not self._again
                known[key] = Known(key, fingerprint, State(state), source, line, ours)
        tried = {intent.row.key for intent in ready}
        for key, place in keys.items():
            answer: int | Known | Asked | None = taken.get(key) or known.get(key)
            if answer is None:
                if key in tried:
                    raise LedgerError(f"{self.path}: the intent of row {key} was neither taken nor refused")
                answer = BASELINE_FIRST
            answers[place] = answer

    def _with_baselines(self, intents: dict[int, Intent], now: int) -> list[Intent]:
        """Return those that do not have to wait for a baseline of their channel."""
        wanting = [self._channel(intent.row) for intent in intents.values() if intent.baseline_first]
        if not wanting:
            return list(intents.values())
        found = self._connection.batch(_WITH_BASELINE, {"run": self._run, "channels": wanting, "now": now})
        taken: dict[int, int] = dict(found)
        return [
            one
            for one in intents.values()
            if not one.baseline_first or taken.get(self._channel(one.row), 0) >= oldest(now, one.baseline_seconds)
        ]

    def _settle_all(self, given: dict[int, Settle], answers: Answers, now: int) -> None:
        numbers, settlements = [one.number for one in given.values()], [one.settlement for one in given.values()]
        fields = [settled(one) for one in settlements]
        values = {
            "number": numbers,
            "key": [one.key for one in settlements],
            "state": [one.state.value for one in fields],
            "sid": [one.sid for one in fields],
            "code": [one.code for one in fields],
            "reason": [one.reason for one in fields],
            "http_status": [one.http_status for one in settlements],
            "attempts": [one.attempts for one in settlements],
            "request_id": [one.request_id and storable(one.request_id) for one in settlements],
            "known_code": KNOWN_SID.code,
            "known_reason": KNOWN_SID.reason,
            "run": self._run,
            "now": now,
        }
        known: dict[int, bool] = dict(self._connection.batch(_SETTLE, values))
        for place, one in given.items():
            if one.number not in known:
                key = one.settlement.key
                raise LedgerError(f"{self.path}: row {key} is no longer started: something else wrote here")
            if known[one.number]:
                answers[place] = SID_KNOWN

    def _find_all(self, findings: Sequence[Finding]) -> None:
        values = {
            "run": self._run,
            "source": [one.source for one in findings],
            "line": [one.line for one in findings],
            "kind": [one.kind for one in findings],
            "key": [one.key for one in findings],
            "code": [one.code for one in findings],
            "reason": [storable(one.reason) for one in findings],
            "record": [self._connection.kept(one.record) for one in findings],
            "detail": [one.detail and storable(one.detail) for one in findings],
            "ref": [one.ref and storable(one.ref) for one in findings],
        }
        self._connection.batch(_FINDINGS, values)

    def close(self) -> None:
        with suppress(LedgerError):
            self._connection.close()


class Batch:
    """Entries of a group that can be written together, in whatever order they came: each is about a row of its own."""

    def __init__(self) -> None:
        self.intents: dict[int, Intent] = {}
        self.settled: dict[int, Settle] = {}
        self.baselines: list[Baseline] = []
        self.findings: list[Finding] = []
        self._keys: set[str] = set()
        self._sids: set[str] = set()
        self._wanting: set[str] = set()

    @property
    def rows(self) -> list[Row]:
        """The rows whose channels are needed."""
        return [*(one.row for one in self.baselines), *(one.row for one in self.intents.values())]

    def takes(self, place: int, entry: Entry) -> bool:
        """Take an entry in; False when it has to be written after the others, or by itself."""
        match entry:
            case Intent(row, baseline_first) if row.key not in self._keys:
                self.intents[place] = entry
                self._keys.add(row.key)
                if baseline_first:
                    self._wanting.add(row.channel)
            case Settle(_, settlement) if (
                settlement.key not in self._keys
                and not settlement.ends_doubt
                and not settlement.reconciled
                and self._has_new_sid(settlement.outcome)
            ):
                self.settled[place] = entry
                self._keys.add(settlement.key)
            case Baseline(row) if row.channel not in self._wanting:
                self.baselines.append(entry)
            case Finding():
                self.findings.append(entry)
            case _:
                return False
        return True

    def _has_new_sid(self, outcome: Outcome) -> bool:
        """Tell whether no other outcome of the batch has this one's sid: the statement sees what was there before."""
        if not isinstance(outcome, Created):
            return True
        known = len(self._sids)
        self._sids.add(outcome.sid.casefold())
        return len(self._sids) > known
