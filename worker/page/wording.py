"""Numbers, shares, spans and times the way people read them."""

import math
from dataclasses import dataclass
from datetime import datetime, tzinfo

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_MINUTE = 60
_HOUR = 3600
_DAY = 86_400

_TEN, _HUNDRED = 10, 100


def count(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}"


def rows(number: int) -> str:
    """Return so many rows, in words."""
    return f"{number:,} row{'' if number == 1 else 's'}"


def measure(number: float) -> str:
    """Return a measured number with about three digits."""
    if not math.isfinite(number):
        return "∞" if number > 0 else "?"
    digits = 0 if number >= _HUNDRED or number == round(number) else 1 if number >= _TEN else 2
    return f"{number:,.{digits}f}"


def share(part: int, whole: int) -> str:
    """Return a percentage that is 0 or 100 only if it is."""
    if whole <= 0:
        return ""
    tenths = 1000 * part / whole
    if 0 < tenths < 1:
        return "< 0.1 %"
    if whole - part > 0 and tenths > 999:  # noqa: PLR2004 - of a thousand
        return "> 99.9 %"
    return f"{tenths / 10:.1f} %"


def span(seconds: float) -> str:
    """Return a time span."""
    if not 0 <= seconds < math.inf:
        return "?"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    if minutes < _MINUTE:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours:,} h {minutes:02} min"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Times as people say them in one zone. year: which one goes without saying."""

    zone: tzinfo
    year: int | None = None

    def local(self, at: float) -> datetime | None:
        """Return a moment in the zone; None if there is no such day."""
        try:
            return datetime.fromtimestamp(at, self.zone)
        except (OverflowError, ValueError, OSError):
            return None

    def time(self, at: float) -> str:
        """Return "22:00"."""
        local = self.local(at)
        return f"{local:%H:%M}" if local else "?"

    def second(self, at: float) -> str:
        """Return "22:00:05"."""
        local = self.local(at)
        return f"{local:%H:%M:%S}" if local else "?"

    def day(self, at: float) -> str:
        """Return "Mon 2 Mar", with the year if it does not go without saying."""
        local = self.local(at)
        if local is None:
            return "?"
        year = "" if local.year == self.year else f" {local.year}"
        return f"{_DAYS[local.weekday()]} {local.day} {_MONTHS[local.month - 1]}{year}"

    def moment(self, at: float) -> str:
        """Return "Mon 2 Mar 22:00"."""
        return f"{self.day(at)} {self.time(at)}" if self.local(at) else "?"
