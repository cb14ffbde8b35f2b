"""The deliberate bugs. `old` stands exactly once in its file; where the code has moved on, the entry has to follow.

A name says what the code does then. The tests are those that must fail: the ones that prove the promise, not merely
the first that stumble.
"""

from dataclasses import dataclass

CRASHES = "tests/test_crash_points.py::test_a_row_is_made_once_wherever_the_process_dies"
PROMISES = "tests/mutants/test_promises.py"
TRAFFIC = "tests/test_traffic.py"
LEDGER = "tests/test_ledger_sqlite.py::TestSqliteLedger"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: in this file, `new` stands for `old`. tests: at least one of them fails, and none without the bug."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    # ---- what an answer means
    Mutant(
        "a lost answer is sent again",
        "worker/verdict.py",
        'return InDoubt("lost", reason)',
        'return Retry("lost", reason)',
        ("tests/test_verdict.py::test_what_never_left_is_tried_again_and_what_was_lost_is_in_doubt",),
    ),
    Mutant(
        "a 500 is sent again",
        "worker/verdict.py",
        "return InDoubt(str(code or status), reason, stranger=error is None, throttled=known is not None)",
        "return Retry(str(code or status), reason)",
        ("tests/test_verdict.py::test_from_500_on_a_row_is_in_doubt_whatever_the_body_says",),
    ),
    Mutant(
        "the code of a 5xx outranks its status",
        "worker/verdict.py",
        "if status >= 500 or status == 408:",
        "if (status >= 500 or status == 408) and code is None:",
        ("tests/test_verdict.py::test_from_500_on_a_row_is_in_doubt_whatever_the_body_says",),
    ),
    Mutant(
        "the answer of another request is believed",
        "worker/verdict.py",
        "if row is not None and (other := _contradiction(document, row)):",
        "if False and row is not None and (other := _contradiction(document, row)):",
        ("tests/test_verdict.py::test_the_answer_of_another_request_is_not_believed",),
    ),
    Mutant(
        "an undo believes any 2xx",
        "worker/verdict.py",
        "return _judge_closed(answer, sid)",
        "return Closed()",
        ("tests/test_undo.py::test_a_page_with_a_2xx_closes_nothing",),
    ),
    Mutant(
        "a gateway's 4xx is sent again",
        "worker/verdict.py",
        "return InDoubt(code, foreign, stranger=True)",
        "return Failed(code, foreign, stranger=True)",
        ("tests/test_verdict.py::test_without_a_known_code_the_status_decides",),
    ),
    Mutant(
        "a redirect is sent again",
        "worker/verdict.py",
        'return InDoubt(str(status), f"redirected (status {status}), not followed: may exist", stranger=True)',
        'return Retry(str(status), f"redirected (status {status})")',
        ("tests/test_verdict.py::test_without_a_known_code_the_status_decides",),
    ),
    Mutant(
        "a success without a sid is a failure",
        "worker/verdict.py",
        'return InDoubt("no_sid", "accepted, without a participant\'s sid: probably exists", stranger=not is_ours)',
        'return Failed("no_sid", "accepted, without a participant\'s sid", stranger=not is_ours)',
        ("tests/test_verdict.py::test_a_2xx_without_a_participant_s_sid_is_in_doubt",),
    ),
    Mutant(
        "whatever broke was never sent",
        "worker/api/client.py",
        "        if left:\n",
        "        if not left:\n",
        ("tests/test_api.py::test_a_lost_answer_is_lost_whether_or_not_the_row_was_made",),
    ),
    Mutant(
        "a setting that cannot work is an outage",
        "worker/verdict.py",
        "    if answer.misconfigured:\n        return Halt(MISCONFIGURED, answer.reason, misconfigured=True)\n",
        "",
        ("tests/test_misconfigured.py::test_a_setting_that_cannot_work_halts_and_is_named",),
    ),
    Mutant(
        "any handshake that breaks is a setting's fault",
        "worker/api/breakage.py",
        "    if reason in _NO_TLS:\n",
        "    if reason not in _OLD_TLS:\n",
        ("tests/test_misconfigured.py::test_a_handshake_that_breaks_is_tried_again",),
    ),
    Mutant(
        "interim responses are passed over without end",
        "worker/api/connector.py",
        "            self._interim += 1\n",
        "            pass\n",
        ("tests/test_hostile.py::test_responses_without_end_are_a_lost_answer_and_no_list",),
    ),
    Mutant(
        "too few open files are found out on the way",
        "worker/cli/importing.py",
        "    allow(settings.limits.concurrency)\n",
        "",
        ("tests/test_descriptor.py::test_too_few_open_files_are_refused_before_anything_is_made",),
    ),
    # ---- durable before moving on
    Mutant(
        "an outcome is recorded without a shield",
        "worker/journal.py",
        "            with anyio.CancelScope(shield=True):\n                await group.done()\n",
        "            raise\n",
        (f"{PROMISES}::test_an_outcome_that_is_being_recorded_when_the_run_is_cut_is_counted",),
    ),
    Mutant(
        "a row is sent before its intent is on record",
        "worker/pipeline.py",
        "        number = await self._begin(row, parked=closed is not None)\n        if number is None:\n"
        "            return False\n",
        "        early = self._submitter.begin(row)\n        await self._submitter.submit(early)\n"
        "        number = await self._begin(row, parked=closed is not None)\n        if number is None:\n"
        "            return False\n        await self._recorder.settle(row, early.settlement(), number)\n"
        "        return False\n",
        (f"{CRASHES}[the request left, and was made]",),
    ),
    Mutant(
        "a write is answered before it is on the disk",
        "worker/journal.py",
        "            write = partial(self._ledger.write, group.entries)\n",
        "            if not any(isinstance(one, Intent) for one in group.entries):\n"
        "                group.answers = [None] * len(group.entries)\n                group.end()\n"
        "            write = partial(self._ledger.write, group.entries)\n",
        (f"{PROMISES}::test_a_channel_waits_until_the_outcome_before_is_on_the_disk",),
    ),
    Mutant(
        "what a crash left is failed at the next opening",
        "worker/ledger/statement.py",
        "UPDATE rows SET state = 'in_doubt', code = 'crash'",
        "UPDATE rows SET state = 'failed', code = 'crash'",
        (f"{CRASHES}[the request left, and was made]",),
    ),
    Mutant(
        "a row may be begun twice in a run",
        "worker/ledger/statement.py",
        "WHERE rows.state NOT IN {BARRIERS} AND rows.run_id <> excluded.run_id\nRETURNING id",
        "WHERE rows.state NOT IN {BARRIERS}\nRETURNING id",
        ("tests/test_pipeline.py::test_a_row_that_fails_again_is_sent_once_in_a_run",),
    ),
    Mutant(
        "a row in doubt is no barrier",
        "worker/ledger/attaching.py",
        "BARRIERS = \"('started', 'created', 'existed', 'waived', 'in_doubt', 'closed')\"",
        "BARRIERS = \"('started', 'created', 'existed', 'waived', 'closed')\"",
        (f"{PROMISES}::test_the_ledger_itself_refuses_an_intent_for_a_row_in_doubt",),
    ),
    Mutant(
        "two processes share a ledger",
        "worker/ledger/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        ("tests/test_command.py::test_two_processes_do_not_share_a_ledger",),
    ),
    # ---- one unresolved create in a channel
    Mutant(
        "rows of one channel are sent at once",
        "worker/rowqueue.py",
        "        if channel not in self._held:\n",
        "        if channel not in self._held or item.line % 2:\n",
        ("tests/test_pipeline.py::test_one_row_of_a_channel_is_in_flight_at_a_time_in_file_order",),
    ),
    Mutant(
        "a channel in doubt goes on",
        "worker/doubts.py",
        "        self.held.setdefault(row.channel, set()).add(row.key)\n",
        "",
        ("tests/test_pipeline.py::test_a_row_in_doubt_is_not_sent_again_and_holds_its_channel",),
    ),
    Mutant(
        "several unresolved rows of a channel are resolved together",
        "worker/reconcile.py",
        "    if around.unresolved > 1:\n",
        "    if around.unresolved > 9:\n",
        ("tests/test_reconcile.py::test_what_cannot_be_told_is_left_to_a_person",),
    ),
    Mutant(
        "a copy of the ledger's file is marked only when its run begins",
        "worker/ledger/sqlite.py",
        "            self._mark.renew(self._sqlite)\n            self._checked_at",
        "            self._checked_at",
        ("tests/test_logmark.py::test_the_mark_is_renewed_after_each_checkpoint",),
    ),
    Mutant(
        "a file is marked before the log holds what takes the mark away",
        "worker/ledger/logmark.py",
        'connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")',
        'connection.execute("SELECT 1")',
        ("tests/test_logmark.py::test_each_clean_end_and_every_copy_by_sqlite_is_complete",),
    ),
    # ---- verifying and waiving
    Mutant(
        "one list makes a participant missing",
        "worker/verify.py",
        "Verified.MISSING if again else Verified.ABSENT",
        "Verified.MISSING",
        (
            "tests/test_verify.py::test_a_list_decides",
            "tests/test_verify.py::test_a_list_that_is_late_is_waited_for",
        ),
    ),
    Mutant(
        "rows that undo closed are verified",
        "worker/ledger/verifying.py",
        "_CREATED = \"rows.state = 'created' AND",
        "_CREATED = \"rows.state IN ('created', 'closed') AND",
        ("tests/test_verify.py::test_rows_come_by_channel_and_closed_ones_do_not",),
    ),
    Mutant(
        "a waiver is taken back to another state",
        "worker/ledger/waiving.py",
        "    AND {_BEFORE} = :state\n",
        "",
        ("tests/test_ledger_sqlite.py::TestSqliteLedger::test_only_the_group_that_was_waived_is_taken_back",),
    ),
    # ---- undoing and forgetting
    Mutant(
        "undo closes what may be somebody else's",
        "worker/ledger/view.py",
        "unproven = 0 AND (:run IS NULL OR run_id = :run)\nORDER BY lower",
        "(:run IS NULL OR run_id = :run)\nORDER BY lower",
        ("tests/test_undo.py::test_what_may_be_somebody_elses_is_kept",),
    ),
    Mutant(
        "a person may give a row a participant that another row had",
        "worker/ledger/view.py",
        "UNION ALL SELECT key, 1 FROM closures JOIN rows ON rows.id = row_id",
        "UNION ALL SELECT key, 1 FROM closures JOIN rows ON rows.id = -row_id",
        ("tests/test_deciding.py::test_a_sid_that_undo_closed_is_no_other_row_s",),
    ),
    Mutant(
        "a sid that no list showed ends a doubt without a question",
        "worker/cli/deciding.py",
        "one.sid not in one.candidates]",
        "one.sid in one.candidates]",
        ("tests/test_deciding.py::test_a_sid_that_no_list_showed_takes_force",),
    ),
    Mutant(
        "a pipe that breaks off is taken for whole",
        "worker/source/reader.py",
        'return self._may_be_cut and text[-1:] not in {"", "\\n", "\\r"}',
        "return False",
        ("tests/test_source.py::test_a_pipe_that_ends_inside_a_line_is_never_taken_for_whole",),
    ),
    Mutant(
        "a participant that was closed is taken for somebody new",
        "worker/ledger/statement.py",
        "UNION SELECT closures.sid FROM closures JOIN rows ON rows.id = row_id WHERE {SAME_CHANNEL}",
        "UNION SELECT sid FROM rows WHERE sid IS NOT NULL AND {SAME_CHANNEL}",
        (f"{LEDGER}::test_a_participant_that_was_closed_stays_ours",),
    ),
    Mutant(
        "pruning drops the baseline of a doubt",
        "worker/ledger/pruning.py",
        "WHERE state IN ('started', 'in_doubt') AND state NOT IN ('created', 'existed'))",
        "WHERE state = 'started' AND state NOT IN ('created', 'existed'))",
        ("tests/test_keeping.py::test_pruning_keeps_every_row_and_what_the_next_run_needs",),
    ),
    Mutant(
        "pruning drops the records of failed rows",
        "worker/ledger/pruning.py",
        "WHERE state IN ('rejected', 'parked', 'waived', 'closed')",
        "WHERE state IN ('rejected', 'parked', 'waived', 'closed', 'failed')",
        ("tests/test_keeping.py::test_pruning_keeps_every_row_and_what_the_next_run_needs",),
    ),
    # ---- what a list says
    Mutant(
        "the baseline is ignored",
        "worker/reconcile.py",
        "(*around.known, *(around.baseline or ()))",
        "around.known",
        (
            "tests/test_reconcile.py::test_the_difference_decides",
            "tests/test_doubts.py::test_foreign_participants_that_were_there_before_are_not_adopted",
        ),
    ),
    Mutant(
        "known sids are not subtracted",
        "worker/reconcile.py",
        "(*around.known, *(around.baseline or ()))",
        "(around.baseline or ())",
        (
            "tests/test_reconcile.py::test_the_difference_decides",
            f"{CRASHES}[the second row was made]",
        ),
    ),
    Mutant(
        "the baseline is taken again after a crash",
        "worker/reconcile.py",
        "        evidence = decide(row, listing.participants, around)\n",
        "        if not doubt.counted:\n"
        "            around = around._replace(baseline=frozenset(str(one.sid) for one in listing.participants))\n"
        "        evidence = decide(row, listing.participants, around)\n",
        (f"{CRASHES}[the request left, and was made]",),
    ),
    Mutant(
        "the baseline of another run counts",
        "worker/ledger/statement.py",
        "FROM baselines JOIN rows USING (channel_id, run_id)",
        "FROM baselines JOIN rows USING (channel_id)",
        (f"{LEDGER}::test_a_baseline_of_another_run_is_not_a_rows_own",),
    ),
    Mutant(
        "only the first page of a list is read",
        "worker/api/client.py",
        "            if page.next_url is None:\n",
        "            if page.next_url is None or found:\n",
        ("tests/test_api.py::test_a_channel_is_listed_to_its_end",),
    ),
    Mutant(
        "a participant of another type is adopted",
        "worker/reconcile.py",
        "    if found.type is not None and found.type != row.type:\n",
        "    if found.type is None:\n",
        ("tests/test_reconcile.py::test_what_cannot_be_told_is_left_to_a_person",),
    ),
    Mutant(
        "types are filtered before the list is called empty",
        "worker/reconcile.py",
        "in here.items() if sid not in before]",
        "in here.items() if sid not in before and one.type == row.type]",
        ("tests/test_reconcile.py::test_emptiness_is_judged_before_any_filter",),
    ),
    Mutant(
        "routing is filtered before the list is called empty",
        "worker/reconcile.py",
        "in here.items() if sid not in before]",
        "in here.items() if sid not in before and not _contradiction(row, _routing(row), one)]",
        ("tests/test_reconcile.py::test_emptiness_is_judged_before_any_filter",),
    ),
    Mutant(
        "what an earlier list has shown is forgotten",
        "worker/reconcile.py",
        "    if gone:\n",
        "    if gone and False:\n",
        ("tests/test_reconcile.py::test_what_cannot_be_told_is_left_to_a_person",),
    ),
    Mutant(
        "an old baseline counts for ever",
        "worker/ledger/tables.py",
        "return max(1, now - round(1000 * seconds)) if seconds < inf else 1",
        "return 1",
        (f"{LEDGER}::test_a_baseline_that_is_too_old_is_asked_for_again",),
    ),
    Mutant(
        "a sid may be that of somebody who was there before",
        "worker/ledger/tables.py",
        "return not by_person and bool(",
        "return False and bool(",
        (f"{LEDGER}::test_the_sid_of_a_participant_that_was_there_before_is_not_new",),
    ),
    Mutant(
        "a sid that another row has is believed",
        "worker/ledger/tables.py",
        "            settlement = replace(settlement, outcome=KNOWN_SID, reconciled=False)",
        "            known = False",
        (f"{LEDGER}::test_a_sid_that_another_row_has_is_the_answer_of_another_request",),
    ),
    Mutant(
        "nobody hears that a sid was known",
        "worker/recorder.py",
        "        if not is_new:\n",
        "        if False:\n",
        ("tests/test_doubts.py::test_an_answer_with_a_sid_that_is_known_is_another_requests",),
    ),
    Mutant(
        "a member of whom we know nothing may be adopted",
        "worker/pipeline.py",
        "await self._recorder.note(Baseline(row, None))",
        "pass",
        ("tests/test_doubts.py::test_a_member_of_whom_we_know_nothing_is_not_adopted_for_a_later_row",),
    ),
    Mutant(
        "the settle time is not waited for",
        "worker/reconcile.py",
        "if doubt.looks > 1 and began >= doubt.since + self._settings.settle_seconds:",
        "if doubt.looks > 1:",
        ("tests/test_reconcile.py::test_absence_is_believed_only_after_the_settle_time",),
    ),
    Mutant(
        "one empty list is enough",
        "worker/reconcile.py",
        "if doubt.looks > 1 and began >= doubt.since",
        "if began >= doubt.since",
        (f"{PROMISES}::test_one_empty_list_is_not_enough_however_late_it_is",),
    ),
    Mutant(
        "a list that was begun too early is believed",
        "worker/reconcile.py",
        "        began = anyio.current_time()\n        listing = await self.list(row)\n",
        "        listing = await self.list(row)\n        began = anyio.current_time()\n",
        (f"{PROMISES}::test_a_list_that_was_asked_for_before_the_settle_time_proves_nothing",),
    ),
    Mutant(
        "the settle time does not count from the opening",
        "worker/pipeline.py",
        "self._doubts.expect(row, opened)",
        "self._doubts.expect(row, opened - 3600)",
        (f"{PROMISES}::test_a_row_of_a_crash_is_not_sent_again_before_the_settle_time_since_the_opening",),
    ),
    Mutant(
        "the settle time counts from the attempt's beginning",
        "worker/doubts.py",
        "doubt = Doubt(number, anyio.current_time(), rounds=rounds",
        "doubt = Doubt(number, anyio.current_time() - 0.3, rounds=rounds",
        (f"{PROMISES}::test_a_lost_row_is_not_sent_again_before_the_settle_time_since_its_attempt_ended",),
    ),
    # ---- limits
    Mutant(
        "the hours are not looked at after the grant",
        "worker/traffic/lane.py",
        "if stays and not traffic.is_held and not traffic.draining.is_set():",
        "if stays and not traffic.draining.is_set():",
        (f"{TRAFFIC}::test_nothing_leaves_after_the_hour_however_late_the_timers_are",),
    ),
    Mutant(
        "what left before a cut cuts again",
        "worker/adaptive.py",
        "if left_at <= self._cut_at or now - self._cut_at < span:",
        "if now <= self._cut_at:",
        ("tests/test_adaptive.py::test_one_event_is_answered_once",),
    ),
    Mutant(
        "a limit grows without load",
        "worker/adaptive.py",
        "        if pressed:\n",
        "        if True:\n",
        ("tests/test_adaptive.py::test_nothing_grows_without_load",),
    ),
    Mutant(
        "a rate may fall to nothing",
        "worker/adaptive.py",
        "        rate = max(rate, min(self._floor, self._ceiling))\n",
        "",
        ("tests/test_adaptive.py::test_whatever_comes_back_the_rate_stays_between_floor_and_ceiling",),
    ),
    Mutant(
        "Retry-After holds its own lane only",
        "worker/traffic/lane.py",
        "for lane in (traffic.creates, traffic.lists):\n                lane.pause_all(seconds)",
        "for lane in (self,):\n                lane.pause_all(seconds)",
        (f"{TRAFFIC}::test_retry_after_holds_every_sender",),
    ),
    Mutant(
        "everybody tries a service that is down",
        "worker/breaker.py",
        "        self._probing = True\n        return True",
        "        return True",
        ("tests/test_breaker.py::test_one_request_at_a_time_tries_and_the_waits_grow",),
    ),
    Mutant(
        "an outage uses up attempts",
        "worker/submit.py",
        "self._left -= not throttled and not self._traffic.breaker.is_open",
        "self._left -= not throttled",
        ("tests/test_limits.py::test_a_service_that_is_not_there_yet_is_waited_for",),
    ),
    # ---- several hosts
    Mutant(
        "a fence keeps nobody out",
        "worker/ledger/fleet.py",
        "            elif one.fence in valid:\n",
        "            elif one.fence in fences:\n",
        ("tests/test_fleet.py::test_who_lost_a_chunk_records_nothing_more_for_it",),
    ),
    Mutant(
        "a lease never ends",
        "worker/lease.py",
        "return self.clock() < self._until",
        "return self.clock() < self._until + 1e9",
        ("tests/test_lease.py::test_nothing_leaves_without_it",),
    ),
    Mutant(
        "a chunk that is taken over begins where nothing was",
        "worker/ledger/fleet.py",
        "    AND key IN (SELECT key FROM queued WHERE chunk_id = ?)\n",
        "    AND key IN (SELECT type FROM queued WHERE chunk_id = ?)\n",
        ("tests/test_fleet.py::test_who_lost_a_chunk_records_nothing_more_for_it",),
    ),
    Mutant(
        "a row that was stopped before it left is forgotten",
        "worker/ledger/fleet.py",
        'case InDoubt() | Failed(code="not_sent"):',
        "case InDoubt():",
        ("tests/test_fleet.py::test_a_row_leaves_the_queue_once_it_is_settled",),
    ),
    Mutant(
        "each host has the whole rate",
        "worker/ledger/queue.py",
        "    due = greatest(kept.due, kept.held_until,",
        "    due = greatest(kept.held_until,",
        ("tests/test_fleet.py::test_slots_of_all_hosts_are_on_one_schedule",),
    ),
    Mutant(
        "rows wait for a connection that others have",
        "worker/fleet/chunk.py",
        "            places=parts.places,\n",
        "            places=None,\n",
        ("tests/test_fleet.py::test_rows_that_wait_for_their_slot_are_no_outage",),
    ),
    Mutant(
        "what one host found is nothing to the others",
        "worker/fleet/pace.py",
        "                self._limits.adopt(reserved.found)\n",
        "",
        ("tests/test_pace.py::test_what_one_host_finds_the_others_hear_with_their_next_slots",),
    ),
    Mutant(
        "a worker that comes back knows of no pause",
        "worker/cli/working.py",
        "self._number, standing=True)",
        "self._number)",
        ("tests/test_fleet.py::test_a_fleet_is_seen_and_steered",),
    ),
    # ---- ending
    Mutant(
        "a drain leaves who waits for a grant",
        "worker/pipeline.py",
        "        self._submitter.withdraw()\n",
        "        self._submitter.begin\n",
        (f"{PROMISES}::test_a_signal_calls_back_who_waits_for_the_limiter",),
    ),
    Mutant(
        "the account is not compared with the ledger",
        "worker/report.py",
        "self.tally.holds() and explained and dict(self.recorded) == self.tally.settled",
        "self.tally.holds() and explained",
        ("tests/test_report.py::test_a_ledger_that_counted_otherwise_is_a_bug",),
    ),
    Mutant(
        "the account is not added up",
        "worker/report.py",
        "self.tally.holds() and explained and dict",
        "explained and dict",
        ("tests/test_report.py::test_a_count_that_is_off_is_a_bug_in_flex_import",),
    ),
)
