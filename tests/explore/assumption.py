"""What the promises rest on. Without any one of these the explorer finds a story that breaks one."""

from enum import Enum


class Assumption(Enum):
    """A statement about the service, other programs, people, or our own discipline; docs/guarantees.md lists them."""

    SETTLES = "The service makes a participant within the settle time after the attempt, or never"
    LISTED = "Once the settle time after its attempt is over, a participant is in the list"
    STAYS_LISTED = "A participant that a list has shown is in every list after its settle time"
    ALONE = "No other program adds a participant of the same type from the baseline to the end of the last doubt"
    EARLIER = "No other program adds one in the settle time before the baseline"
    TYPED = "Lists give the type of each participant"
    OWN_ROUTING = "No other participant of the channel has a task, worker or reservation sid of the row"
    OWN_ANSWER = "A success that names a new participant, and no other channel or type, answers this request"
    REFUSED = "A request that is refused makes no participant (429, a conflict, no connection, a 4xx of Twilio's)"
    MEMBER = "A participant that the service calls a member already is one"
    DURABLE = "A record survives a crash, and nobody puts an older copy of the ledger back"
    ONE_WORKER = "One process at a time works on a ledger"
    ONE_CREATE = "One row of a channel at a time is being sent or in doubt"
    PATIENT = "A person who decides `not created` has looked after the settle time"
    RIGHT = "A person's decision is true"


ALL = frozenset(Assumption)
