"""A Twilio Flex API on this machine: as faithful as what is known of it, and as unkind as the world.

It makes participants, keeps the truth about them, and lets clients down in every way that a network and a service can,
by chance or by script. Nothing here was compared with the live service: facts carry the marks [card] (the API's
description), [spec] (Twilio's OpenAPI file), [docs] (Twilio's documentation), [code] (Twilio's SDKs), [infer] (ours).

    emulator = Emulator(Behaviour(rate_per_second=20, faults_after={Fault.RESET: 0.01}))
    async with serve(emulator) as base_url:
        ...
    emulator.participants
"""

from worker.emulator.behaviour import Behaviour, Echo
from worker.emulator.emulator import Emulator
from worker.emulator.fault import (
    FAULTS,
    PRESUPPOSES_MAKING,
    UNDECIDABLE,
    Answer,
    Call,
    ErrorShape,
    Fault,
    Scripted,
    When,
    after,
    before,
    late,
    ordinary,
    throttled,
)
from worker.emulator.server import serve
from worker.emulator.truth import Condition, Participant, Request, Stats

__all__ = [
    "FAULTS",
    "PRESUPPOSES_MAKING",
    "UNDECIDABLE",
    "Answer",
    "Behaviour",
    "Call",
    "Condition",
    "Echo",
    "Emulator",
    "ErrorShape",
    "Fault",
    "Participant",
    "Request",
    "Scripted",
    "Stats",
    "When",
    "after",
    "before",
    "late",
    "ordinary",
    "serve",
    "throttled",
]
