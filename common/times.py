"""The ladder of time limits: one is chosen, the others follow."""

from datetime import timedelta

QSTASH_DELIVERIES = 4  # the first and three retries


class TimeLadder:
    """All time limits, derived from the total time of one model call so that none can overtake.

    call < graceful stop < QStash's timeout < lease < redelivery of an unanswered message.
    """

    def __init__(self, call_seconds: float) -> None:
        self.call = timedelta(seconds=call_seconds)
        self.graceful_stop = self.call + timedelta(seconds=3)
        self.delivery_timeout = self.call + timedelta(seconds=10)
        self.lease = self.call + timedelta(seconds=15)
        self.redelivery = self.lease + timedelta(seconds=5)

    @property
    def longest_wait(self) -> timedelta:
        """How long a delivery may at most be told to wait (`Retry-After`)."""
        return 3 * self.redelivery

    @property
    def retry_delay(self) -> str:
        """QStash's expression, in milliseconds, for a delivery that got no answer.

        Source: https://upstash.com/docs/qstash/features/retry
        """
        return f"{round(self.redelivery.total_seconds() * 1000)} * (1 + retried)"

    @property
    def worst_case(self) -> timedelta:
        """From due until the last delivery has ended, when each one fails as slowly as it can."""
        return QSTASH_DELIVERIES * self.delivery_timeout + (
            (QSTASH_DELIVERIES - 1) * self.longest_wait
        )

    @property
    def deadline(self) -> timedelta:
        """From due until the analysis is over, whatever happened."""
        return max(timedelta(minutes=10), self.worst_case)
