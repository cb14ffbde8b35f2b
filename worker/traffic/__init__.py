"""What may leave, and when.

Requests of each kind have a lane with a rate of its own; all lanes of a run share the slots (requests at once), the
breaker, and whatever holds the whole run.

A request passes, in this order, what holds the run (closed hours, a pause), the breaker, its slot, and the grant, which
is last, so that nothing bunches after it.
"""

from worker.traffic.departure import LaneDeparture, Patience
from worker.traffic.gate import WithdrawnError
from worker.traffic.lane import CONCURRENCY_CODE, Lane, Permit, Refusal, Traffic
from worker.traffic.pace import Alone, Pace

__all__ = [
    "CONCURRENCY_CODE",
    "Alone",
    "Lane",
    "LaneDeparture",
    "Pace",
    "Patience",
    "Permit",
    "Refusal",
    "Traffic",
    "WithdrawnError",
]
