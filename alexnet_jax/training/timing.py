"""Where the time of a run goes, and how fast it trains."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

Part = Literal["start", "steps", "data", "evaluation", "saving", "repeated"]
# start: until the first step is compiled and done. steps: training, and logging it. data: idle
# devices wait for a batch. evaluation: with its compilation. saving: training waits for a
# checkpoint. repeated: steps of killed processes after their last checkpoint, trained again.
PARTS: tuple[Part, ...] = ("start", "steps", "data", "evaluation", "saving", "repeated")


class TimeBudget:
    """Seconds of a run by part; every moment is in exactly one part, so they sum to the whole.

    Attributes:
        part: the one that goes on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._since, self.part = clock, clock(), PARTS[0]
        self._spent = no_time()

    def __getitem__(self, part: Part) -> float:
        """Return the seconds of a part so far."""
        self._settle()
        return self._spent[part]

    def spent(self) -> dict[str, float]:
        """Return the seconds of all parts."""
        self._settle()
        return dict(self._spent)

    def seconds(self) -> float:
        """Return how long the run has taken, over all its processes."""
        return sum(self.spent().values())

    def add(self, spent: Mapping[str, float]) -> None:
        """Add what earlier processes spent."""
        for part in PARTS:
            self._spent[part] += spent[part]

    def begin(self, part: Part) -> None:
        """Let `part` go on from now."""
        self._settle()
        self.part = part

    @contextlib.contextmanager
    def during(self, part: Part) -> Iterator[None]:
        """Let `part` go on inside, then again the part before."""
        before = self.part
        self.begin(part)
        try:
            yield
        finally:
            self.begin(before)

    def move(self, seconds: float, part: Part) -> None:
        """Count the latest `seconds`, which turned out to belong to `part`, there."""
        self._settle()
        self._spent[self.part] -= seconds
        self._spent[part] += seconds

    def _settle(self) -> None:
        now = self._clock()
        self._spent[self.part] += now - self._since
        self._since = now


def no_time() -> dict[str, float]:
    """Return 0 seconds for each part."""
    return dict.fromkeys(PARTS, 0.0)


def earlier_time(
    saved: Mapping[str, float], step: int, lines: Iterable[Mapping[str, Any]]
) -> dict[str, float]:
    """Return what earlier processes spent: by the checkpoint of `step`, and what came after it.

    A process that was killed has left lines of metrics after its last checkpoint. Up to the last of
    them its time is known: steps after `step` are repeated; at `step` there are evaluations alone.
    """
    spent = dict(saved)
    for line in lines:
        unsaved = max(0.0, line.get("seconds", 0.0) - sum(spent.values()))
        spent["repeated" if line["step"] > step else "evaluation"] += unsaved
    return spent


class Meter:
    """The speed of training since the last reset: steps and waiting for data, nothing else."""

    def __init__(self, budget: TimeBudget):
        self._budget = budget
        self.reset()

    def reset(self) -> None:
        """Begin to measure."""
        self.images = 0
        self._steps, self._data = self._budget["steps"], self._budget["data"]

    def images_per_second(self) -> float | None:
        """Return the mean speed; None without a step."""
        return self.images / self._seconds() if self.images else None

    def waiting_for_data(self) -> float:
        """Return the fraction of the time in which idle devices waited for a batch."""
        return (self._budget["data"] - self._data) / self._seconds()

    def _seconds(self) -> float:
        steps, data = self._budget["steps"] - self._steps, self._budget["data"] - self._data
        return max(1e-9, steps + data)
