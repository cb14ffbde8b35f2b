"""The limits' arithmetic: what happened in the last second, and what is happening at once."""

from collections import deque
from typing import Final

_SECOND: Final = 1.0


class Window:
    """Counts events in the second that ends now, the edge a second ago excluded, and remembers the busiest one."""

    __slots__ = ("_times", "busiest")

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self.busiest = 0

    def count(self, now: float) -> int:
        """How many events the last second holds; `now` in monotonic seconds, never smaller than before."""
        times = self._times
        edge = now - _SECOND
        while times and times[0] <= edge:
            times.popleft()
        return len(times)

    def add(self, now: float) -> None:
        """Count one more event."""
        self._times.append(now)
        self.busiest = max(self.busiest, self.count(now))


class Flight:
    """Counts requests in flight: those whose client waits (`flying`), and those being worked on (`working`).

    They differ when a client gave up: it keeps its promise of so many at once, the service is still busy.
    Per channel only creates count.
    """

    __slots__ = ("_channels", "flying", "most", "most_in_one_channel", "working")

    def __init__(self) -> None:
        self._channels: dict[str, int] = {}
        self.flying = 0
        self.working = 0
        self.most = 0
        self.most_in_one_channel = 0

    def take_off(self, channel_sid: str | None) -> None:
        """Count a request in, with the channel it creates in."""
        self.working += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        if channel_sid is not None:
            count = self._channels[channel_sid] = self._channels.get(channel_sid, 0) + 1
            self.most_in_one_channel = max(self.most_in_one_channel, count)

    def land(self, channel_sid: str | None) -> None:
        """Count a request out because it is answered, or because its client has gone."""
        self.flying -= 1
        if channel_sid is not None:
            count = self._channels[channel_sid] - 1
            if count:
                self._channels[channel_sid] = count
            else:  # kept small: a million channels pass through here
                del self._channels[channel_sid]

    def finish(self) -> None:
        """Count a request out for which the service has nothing more to do."""
        self.working -= 1

    def in_channel(self, channel_sid: str) -> int:
        """How many creates are in flight in this channel."""
        return self._channels.get(channel_sid, 0)
