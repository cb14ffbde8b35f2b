"""A reason is a pattern: rows with the same trouble are one group, whatever numbers the trouble came with."""

import re

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from tests.samples_of import row, sid
from worker.api.breakage import reason_of
from worker.ledger import Surroundings
from worker.model import InDoubt, Listed, Rejected, Reply
from worker.payload.fault import strange
from worker.reconcile import Undecided, decide
from worker.verdict import judge

KEY = ConnectionKey(
    "flex-api.twilio.com", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)


def broken(number: int) -> list[BaseException]:
    """Return what a network says, with a number of its own."""
    return [
        ConnectionRefusedError(111, f"Connect call failed ('10.0.0.{number}', 443)"),
        aiohttp.ClientConnectorError(KEY, OSError(111, f"Connect call failed ('10.0.0.{number}', 443)")),
        aiohttp.ClientConnectorError(KEY, OSError(f"Multiple exceptions: [Errno 111] ('::{number}', 443, 0, 0)")),
        aiohttp.ClientPayloadError(f"Response payload is not completed: received {number} of 439 bytes"),
        aiohttp.ClientOSError(104, f"reset after {number} bytes"),
        TimeoutError(f"no answer within 30.{number} s"),
        aiohttp.ServerTimeoutError(f"Timeout on reading data from socket after {number}.02 s"),
    ]


@pytest.mark.parametrize("place", range(len(broken(0))))
def test_what_a_network_says_has_no_number_of_its_own(place: int) -> None:
    """Neither an address nor a count: behind one name stand many addresses."""
    reasons = {reason_of(broken(number)[place]) for number in (7, 23)}
    assert len(reasons) == 1
    assert not re.search(r"\d", reasons.pop())


def test_what_the_service_says_has_no_number_of_its_own() -> None:
    """A refusal in words that are not known here."""
    bodies = [f'{{"code": 45999, "message": "Participant {n} of {n}00 is invalid"}}' for n in (7, 23)]
    verdicts = {judge(Reply(400, body.encode())) for body in bodies}
    assert verdicts == {Rejected("45999", "Participant … of … is invalid")}


def test_what_a_list_says_has_no_number_of_its_own() -> None:
    """How many rows or participants it is about differs from channel to channel."""
    for most in (2, 3):
        listed = [Listed(sid("UT", number), "customer", None) for number in range(most)]
        around = Surroundings(frozenset(), frozenset(), 1)
        assert isinstance(found := decide(row(1), listed, around), Undecided)
        assert found.reason == "several participants could be this row's"
        assert isinstance(found := decide(row(1), listed, around._replace(unresolved=most)), Undecided)
        assert found.reason == "several rows of this channel are in doubt; a list cannot tell them apart"


def test_what_a_record_has_too_much_is_not_counted() -> None:
    """Fields that no participant has: the first ones are named, the others are not."""
    reasons = {"; ".join(one.sentence for one in strange([f"x{n}" for n in range(most)])) for most in (30, 40)}
    assert len(reasons) == 1


def test_a_status_is_a_kind_and_no_number() -> None:
    """A gateway's statuses are few, and each is another trouble."""
    assert judge(Reply(502, b"")) == InDoubt("502", "the service failed (status 502): may exist", stranger=True)
