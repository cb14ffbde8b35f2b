"""Who may send in a lane, and when: a run alone, or one of many that share a pace."""

from typing import Protocol

from worker.limiter import Limiter


class Pace(Protocol):
    """Who may send in a lane, and when."""

    rate: float

    @property
    def let_through(self) -> float | None:
        """How many a second all who share this pace got through lately, if that is known."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait."""
        ...

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long."""
        ...

    def pause_all(self, seconds: float) -> None:
        """Let nobody send for so long who shares this pace."""
        ...

    def count(self) -> None:
        """Take note of one that got through."""
        ...

    def learn(self, found: float) -> None:
        """Tell them which limit was found; infinite when it is gone."""
        ...

    def acquire_nowait(self) -> bool:
        """Tell whether one request may be sent now."""
        ...

    async def acquire(self) -> None:
        """Return when one request may be sent."""
        ...


class Alone(Limiter):
    """The pace of a run that shares it with nobody."""

    let_through = None

    def pause_all(self, seconds: float) -> None:
        """Pause."""
        self.pause(seconds)

    def count(self) -> None:
        """Do nothing: the finder counts."""

    def learn(self, found: float) -> None:
        """Tell nobody."""
