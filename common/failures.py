"""Why an analysis can fail: one table, read by the page, the API, the worker and the log."""

from enum import StrEnum
from typing import Self


class Kind(StrEnum):
    """What follows from a failure, for the retry loop and for QStash."""

    TRANSIENT = "transient"  # the same attempt may work a little later
    INPUT = "input"  # this text can't be analysed, however often it is tried
    OPERATOR = "operator"  # nothing works until the operator acts: the message rests in the DLQ
    LOST = "lost"  # the analysis never ran to its end; trying again is worth it


_AGAIN = "Nothing is wrong with your text. You can try again."
_CHANGE = "Change or shorten your text and send it again."
_OURS = "That's ours to fix. Your text is kept; try again later."


class Failure(StrEnum):
    """Its value is stored and logged and stays what it is; the person reads the sentences."""

    kind: Kind
    sentence: str
    next_step: str

    def __new__(cls, code: str, kind: Kind, sentence: str, next_step: str) -> Self:
        failure = str.__new__(cls, code)
        failure._value_ = code
        failure.kind, failure.sentence, failure.next_step = kind, sentence, next_step
        return failure

    # fmt: off
    RATE_LIMITED = "rate_limited", Kind.TRANSIENT, "The AI service was busy.", _AGAIN
    MODEL_UNAVAILABLE = "model_unavailable", Kind.TRANSIENT, "We got no answer from the AI service.", _AGAIN
    MODEL_ERROR = "model_error", Kind.TRANSIENT, "The AI service had a problem of its own.", _AGAIN
    MODEL_TIMEOUT = "model_timeout", Kind.TRANSIENT, "The AI service took too long to answer.", _AGAIN
    UNREADABLE_ANSWER = "unreadable_answer", Kind.TRANSIENT, "The AI service's answer could not be read.", _AGAIN
    ANSWER_TRUNCATED = "answer_truncated", Kind.TRANSIENT, "The answer was cut off before its end.", _CHANGE
    INTERNAL_ERROR = "internal_error", Kind.TRANSIENT, "Something went wrong on our side.", _AGAIN
    REFUSED_BY_MODEL = "refused_by_model", Kind.INPUT, "The AI model declined to work on this text.", _CHANGE
    CONTENT_FILTERED = "content_filtered", Kind.INPUT, "The AI service's content filter stopped this text.", _CHANGE
    REQUEST_BLOCKED = "request_blocked", Kind.INPUT, "The AI service, or a filter before it, didn't let this text through.", _CHANGE
    ANSWER_TOO_LONG = "answer_too_long", Kind.INPUT, "The answer to this text was cut off twice.", _CHANGE
    KEY_REFUSED = "key_refused", Kind.OPERATOR, "Our access to the AI service was refused.", _OURS
    MODEL_NOT_FOUND = "model_not_found", Kind.OPERATOR, "The AI model we ask for is not available.", _OURS
    QUOTA_EXCEEDED = "quota_exceeded", Kind.OPERATOR, "Our quota at the AI service is used up.", _OURS
    NO_RESPONSES_API = "no_responses_api", Kind.OPERATOR, "The AI service can't do what we ask of it.", _OURS
    ONLY_REASONING = "only_reasoning", Kind.OPERATOR, "The AI model spent all its room on thinking, and wrote nothing.", _OURS
    REQUEST_REFUSED = "request_refused", Kind.OPERATOR, "The AI service didn't accept our request.", _OURS
    NOT_QUEUED = "not_queued", Kind.LOST, "Your request could not be put into the queue.", _AGAIN
    DELIVERY_FAILED = "delivery_failed", Kind.LOST, "Your request got lost on the way.", _AGAIN
    ATTEMPTS_EXHAUSTED = "attempts_exhausted", Kind.LOST, "We tried several times, and it didn't work.", _AGAIN
    TIMED_OUT = "timed_out", Kind.LOST, "It wasn't ready in time.", _AGAIN
    TASK_CHANGED = "task_changed", Kind.LOST, "The form has changed since this was sent.", "Please send a new request."
    # fmt: on


class Limit(StrEnum):
    """Why a new request is not taken just now; `operations/limits.py` says what is counted."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> Self:
        limit = str.__new__(cls, code)
        limit._value_, limit.sentence = code, sentence
        return limit

    # fmt: off
    PAUSED = "paused", "Our access to the AI service does not work just now, so we take no new requests."
    WAITING = "waiting", "So many requests are waiting that yours would not be ready in time."
    VISITOR = "visitor", "You have sent as many requests as one visitor can in an hour."
    EVERYONE = "everyone", "More requests have come in this hour than we can take."
    DAILY_ANALYSES = "daily_analyses", "All the requests that we can work on today have been sent."
    DAILY_TOKENS = "daily_tokens", "All that we can spend on requests today is used up."
    # fmt: on
