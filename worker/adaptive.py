"""Finding a limit that nobody tells: pure laws, for requests a second (`RateFinder`) and at once (`SlotFinder`).

Both follow CUBIC, TCP's law [RFC 9438]: at a refusal fall to a little below what was let through lately, come back
quickly, linger just below the point of the refusal, and only then, slowly first, look for more. So most of the limit
is used, a refusal is rare, and a limit that was raised is found. What is known to go wrong elsewhere does not here:

* one event is answered once, however many requests were under way when it happened: what left before the last cut
  says nothing about the rate after it;
* nothing grows without load: only time in which somebody waited for this very limit counts;
* nothing falls to zero: a rate has a floor, slots end at 1, and a single cut is bounded;
* what falls is measured (how much was let through), not guessed from the limit's own value.

Read no clock: times are arguments, in seconds, and never run backwards.
"""

import math
from collections import deque

CUT = 0.95
"""How far below the limit a cut goes: low enough to get out of its window, high enough to cost little."""

HOLD_SECONDS = 5.0
HOLD_ANSWERS = 150.0
"""How long to stay below a known limit: so long, and for at least so many answers, that a refusal is a rare one."""

STEP_SECONDS = 5.0
"""After the hold: 10 % more after so long, 80 % after twice as long."""

_SPAN_SECONDS = 1.0
_SPAN_ANSWERS = 5.0
_BUCKETS_A_SECOND = 10
_BUCKETS = 200
_LEAST_SHARE = 0.25
_FIRST_GUESS = 10.0
_LONGEST_STEP = 0.5
_NOTICEABLE = 0.005
_ANSWERS_FOR_OTHERS = 20
_ECHO_SECONDS = 0.1
"""A service that has just refused one too many may still be closing it when the next one comes."""

_SINGLE_CUTS = 2


class _Recent:
    """How many requests were let through in the last seconds, in tenths of a second."""

    def __init__(self) -> None:
        self._buckets: deque[list[int]] = deque(maxlen=_BUCKETS)

    def add(self, now: float) -> None:
        bucket = math.floor(now * _BUCKETS_A_SECOND)
        if self._buckets and self._buckets[-1][0] == bucket:
            self._buckets[-1][1] += 1
        else:
            self._buckets.append([bucket, 1])

    def rate(self, now: float, span: float) -> float:
        """Return how many a second there were in the last `span` seconds."""
        oldest = math.floor((now - span) * _BUCKETS_A_SECOND)
        covered = now - (oldest + 1) / _BUCKETS_A_SECOND  # the span's first tenth is counted in part, so not at all
        return sum(count for bucket, count in self._buckets if bucket > oldest) / covered


class _Rest:
    """The time since a cut in which somebody waited for the limit: only that can show that there is more."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = -math.inf

    def begin(self, now: float) -> None:
        self.seconds = 0.0
        self._last = now

    def pass_on(self, now: float, *, pressed: bool) -> None:
        if pressed:
            self.seconds += min(max(now - self._last, 0.0), _LONGEST_STEP)
        self._last = now

    def beyond(self, hold: float) -> float:
        """Return the share by which to exceed what was found, once the hold is over."""
        return 0.1 * ((self.seconds - hold) / STEP_SECONDS) ** 3


class RateFinder:
    """Finds a rate limit below a ceiling. ceiling, floor: requests a second; the ceiling may be `math.inf`.

    rate: what to send now. found: where it was refused last, None while nothing below the ceiling is known.
    """

    def __init__(self, ceiling: float, floor: float) -> None:
        self._ceiling = ceiling
        self._floor = floor
        self._recent = _Recent()
        self._rest = _Rest()
        self._cut_at = -math.inf
        self.found: float | None = None
        self.rate = ceiling

    @property
    def ceiling(self) -> float:
        """The rate never to exceed. Set, it holds at once."""
        return self._ceiling

    @ceiling.setter
    def ceiling(self, ceiling: float) -> None:
        self._ceiling = ceiling
        self._follow()

    def admit(self, now: float, *, pressed: bool) -> None:
        """Take note of an answer that was no 429. pressed: whether anybody waited for this limit."""
        self._recent.add(now)
        self._rest.pass_on(now, pressed=pressed)
        self._follow()

    def refuse(self, now: float, left_at: float, *, let_through: float | None = None) -> bool:
        """Take note of a 429 to a request that left then; tell whether that was news, and cut the rate.

        let_through: how many a second all who share the limit got through lately, if that is known.
        """
        finite = math.isfinite(self.rate)
        span = max(_SPAN_SECONDS, _SPAN_ANSWERS / self.rate)
        if left_at <= self._cut_at or now - self._cut_at < span:
            return False
        least = self.rate * _LEAST_SHARE if finite else _FIRST_GUESS
        self.found = min(self.rate, max(self._recent.rate(now, span), let_through or 0.0, least))
        self._cut_at = now
        self._rest.begin(now)
        self._follow()
        return True

    def adopt(self, found: float, now: float) -> None:
        """Go on from what another one has just found, of the same limit."""
        self.found = found
        self._cut_at = now
        self._rest.begin(now)
        self._follow()

    def _follow(self) -> None:
        rate = self._ceiling if self.found is None else self._grown(self.found)
        if rate >= self._ceiling:
            self.found = None
            rate = self._ceiling
        rate = max(rate, min(self._floor, self._ceiling))
        # each change calls whoever waits: those that nobody would notice are saved up
        if not abs(rate - self.rate) < _NOTICEABLE * self.rate or rate == self._ceiling:
            self.rate = rate

    def _grown(self, found: float) -> float:
        hold = max(HOLD_SECONDS, HOLD_ANSWERS / found)
        if self._rest.seconds < hold:
            return found * (1 - (1 - CUT) * (1 - self._rest.seconds / hold) ** 3)
        return found * (1 + self._rest.beyond(hold))


class SlotFinder:
    """Finds a limit of requests at once below a ceiling; others may use the same limit.

    limit: how many to have in flight now, at least 1. found: as in `RateFinder`, for the whole account where the API
    tells how many it has in flight (`Twilio-Concurrent-Requests`), otherwise for this run alone.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self._rest = _Rest()
        self._cut_at = -math.inf
        self._least = 1
        self._cuts = 0
        self._others: deque[int] = deque(maxlen=_ANSWERS_FOR_OTHERS)
        self.found: int | None = None
        self.limit = ceiling

    def admit(self, now: float, *, pressed: bool, in_flight: int, concurrent: int | None) -> None:
        """Take note of an answer that was no 429. in_flight: ours, this one included; concurrent: the account's."""
        if concurrent is not None:
            self._others.append(max(0, concurrent - in_flight))
        self._rest.pass_on(now, pressed=pressed)
        self._follow()

    def refuse(self, now: float, left_at: float, *, in_flight: int, concurrent: int | None) -> bool:
        """Take note of a 429 about requests at once; tell whether that was news.

        in_flight: ours when this one left, itself included: those after it may have been let in when it was refused.
        """
        if concurrent is not None:
            self._others.append(max(0, concurrent - in_flight))
        let_in = max(1, (in_flight if concurrent is None else concurrent) - 1)
        if left_at <= self._cut_at + _ECHO_SECONDS:
            # of the same burst: the first that was refused tells the limit; what left after it met its echo
            if self.found is not None and left_at <= self._cut_at and not self._rest.seconds:
                self.found = max(self._least, min(self.found, let_in))
                self._follow()
            return False
        self._cuts = self._cuts + 1 if now - self._cut_at < _SPAN_SECONDS else 1
        found = min(self.limit + self._taken_by_others(), let_in)
        self._least = max(1, found // 4)
        self.found = max(1, int(found * 0.8)) if self._cuts > _SINGLE_CUTS else found
        self._cut_at = now
        self._rest.begin(now)
        self._follow()
        return True

    def _taken_by_others(self) -> int:
        """Return how many of the account's are surely not ours: answers are not seen in the order of their sending."""
        return min(self._others, default=0)

    def _follow(self) -> None:
        if self.found is None:
            self.limit = self.ceiling
            return
        whole = self.found
        if self._rest.seconds > HOLD_SECONDS:
            whole += int(max(self.found, 10) * self._rest.beyond(HOLD_SECONDS))
        limit = whole - self._taken_by_others()
        if limit >= self.ceiling:
            self.found = None
        self.limit = min(max(limit, 1), self.ceiling)
