"""`emulator`: a Flex API on this machine, until it is stopped."""

import signal

import anyio

from worker.cli.looping import run_loop
from worker.cli.telling import say, tell
from worker.emulator import FAULTS, UNDECIDABLE, Behaviour, Call, Emulator, Fault, serve
from worker.errors import ConfigError
from worker.model import Exit

_MADE_FIRST = tuple(fault for fault in FAULTS[Call.CREATE] if fault not in UNDECIDABLE)
_NOTHING_MADE = (Fault.RESET, Fault.HANG, Fault.SERVER_ERROR, Fault.BAD_GATEWAY, Fault.STRANGERS_PAGE, Fault.MISCODED)


def behave(latency: float, rate: float | None, concurrency: int | None, faults: float) -> Behaviour:
    """Return the behaviour that the command's options ask for. Raises ConfigError for what cannot be.

    faults: a share of all creates, spread evenly over the ways to fail, before and after a participant is made.
    """
    each = faults / (len(_MADE_FIRST) + len(_NOTHING_MADE))
    try:
        return Behaviour(
            latency_seconds=latency,
            rate_per_second=rate,
            concurrency=concurrency,
            faults_before=dict.fromkeys(_NOTHING_MADE, each),
            faults_after=dict.fromkeys(_MADE_FIRST, each),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def serve_emulator(port: int, behaviour: Behaviour, *, remember: bool) -> int:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM. Raises ConfigError when the port is taken."""
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port: {port} is no port; it must be between 0 and 65535")
    try:
        run_loop(_serve, port, Emulator(behaviour, remember=remember))
    except OSError as exc:
        raise ConfigError(f"--port: port {port} of 127.0.0.1 cannot be used: {exc.strerror}") from exc
    return Exit.DONE


async def _serve(port: int, emulator: Emulator) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve(emulator, port=port) as base_url:
            tell(base_url)
            say(
                "Any credentials will do. In another terminal:\n"
                "  export TWILIO_ACCOUNT_SID=AC0 TWILIO_AUTH_TOKEN=0\n"
                f"  flex-import run FILE --base-url {base_url} --ledger try.db\n"
                f"What it has made: curl {base_url}/emulator/truth    Ctrl-C ends it and forgets everything."
            )
            async for _ in signals:
                break
