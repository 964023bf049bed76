"""Why an analysis can fail: one table, read by the page, the API, the worker and the log."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What follows from a failure, for the retry loop and for QStash."""

    TRANSIENT = "transient"  # the same attempt may work a little later
    INPUT = "input"  # this text can't be analysed, however often it is tried
    OPERATOR = "operator"  # nothing works until the operator acts: the message rests in the DLQ
    LOST = "lost"  # the analysis never ran to its end; trying again is worth it


class FailureCode(StrEnum):
    """Stored in records and logged: names stay what they are."""

    RATE_LIMITED = "rate_limited"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_TIMEOUT = "model_timeout"
    UNREADABLE_ANSWER = "unreadable_answer"
    ANSWER_TRUNCATED = "answer_truncated"
    INTERNAL_ERROR = "internal_error"
    REFUSED_BY_MODEL = "refused_by_model"
    CONTENT_FILTERED = "content_filtered"
    ANSWER_TOO_LONG = "answer_too_long"
    KEY_REFUSED = "key_refused"
    MODEL_NOT_FOUND = "model_not_found"
    QUOTA_EXCEEDED = "quota_exceeded"
    REQUEST_REFUSED = "request_refused"
    NOT_QUEUED = "not_queued"
    DELIVERY_FAILED = "delivery_failed"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Failure:
    """One row: what follows, what the person reads, and what the person can do."""

    kind: Kind
    sentence: str
    next_step: str


_TRY_AGAIN = "Nothing is wrong with your text. You can try again."
_SHORTEN = "Change or shorten your text and send it again."
_OURS = "This is for us to mend, there is nothing for you to do. Please try again later."

FAILURES: dict[FailureCode, Failure] = {
    FailureCode.RATE_LIMITED: Failure(Kind.TRANSIENT, "The AI service was busy.", _TRY_AGAIN),
    FailureCode.MODEL_UNAVAILABLE: Failure(
        Kind.TRANSIENT, "The AI service could not be reached.", _TRY_AGAIN
    ),
    FailureCode.MODEL_TIMEOUT: Failure(
        Kind.TRANSIENT, "The AI service took too long to answer.", _TRY_AGAIN
    ),
    FailureCode.UNREADABLE_ANSWER: Failure(
        Kind.TRANSIENT, "The AI service gave an answer we could not read.", _TRY_AGAIN
    ),
    FailureCode.ANSWER_TRUNCATED: Failure(
        Kind.TRANSIENT, "The answer was cut off before its end.", _SHORTEN
    ),
    FailureCode.INTERNAL_ERROR: Failure(
        Kind.TRANSIENT, "Something went wrong on our side.", _TRY_AGAIN
    ),
    FailureCode.REFUSED_BY_MODEL: Failure(
        Kind.INPUT, "The AI model declined to analyse this text.", _SHORTEN
    ),
    FailureCode.CONTENT_FILTERED: Failure(
        Kind.INPUT, "The AI service's content filter stopped this text.", _SHORTEN
    ),
    FailureCode.ANSWER_TOO_LONG: Failure(
        Kind.INPUT, "The answer to this text was cut off twice.", _SHORTEN
    ),
    FailureCode.KEY_REFUSED: Failure(
        Kind.OPERATOR, "Our access to the AI service was refused.", _OURS
    ),
    FailureCode.MODEL_NOT_FOUND: Failure(
        Kind.OPERATOR, "The AI model we ask for is not available.", _OURS
    ),
    FailureCode.QUOTA_EXCEEDED: Failure(
        Kind.OPERATOR, "Our quota at the AI service is used up.", _OURS
    ),
    FailureCode.REQUEST_REFUSED: Failure(
        Kind.OPERATOR, "The AI service did not accept our request.", _OURS
    ),
    FailureCode.NOT_QUEUED: Failure(
        Kind.LOST, "Your analysis could not be put into the queue.", _TRY_AGAIN
    ),
    FailureCode.DELIVERY_FAILED: Failure(
        Kind.LOST, "Your analysis could not be delivered to the part that runs it.", _TRY_AGAIN
    ),
    FailureCode.ATTEMPTS_EXHAUSTED: Failure(
        Kind.LOST, "We tried several times and it did not work.", _TRY_AGAIN
    ),
    FailureCode.TIMED_OUT: Failure(Kind.LOST, "Your analysis was not ready in time.", _TRY_AGAIN),
}
