"""What is left of a lease. Everything asks here, so that it ends by itself before the machine is taken away."""

import time
from dataclasses import dataclass, field

RESERVE = 40.0  # seconds before the limit at which work stops; packing what it made takes the rest


@dataclass(frozen=True)
class Clock:
    """Runs from its making."""

    minutes: float
    reserve: float = RESERVE
    start: float = field(default_factory=time.monotonic)

    @property
    def gone(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        """Seconds for work; negative in the reserve."""
        return 60 * self.minutes - self.reserve - self.gone
