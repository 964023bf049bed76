"""What to do about a failed analysis, for the operator: `doctor` and `make smoke` say it."""

from common.failures import Failure

WAY_THERE = "the way there (DNS, firewall, proxy)"
HINTS = {
    Failure.MODEL_UNAVAILABLE: f"Check OPENAI_BASE_URL, and {WAY_THERE}.",
    Failure.MODEL_TIMEOUT: "Check OPENAI_BASE_URL; a slow model needs a higher "
    "OPENAI_TIMEOUT_SECONDS.",
    Failure.MODEL_ERROR: "Try again later.",
    Failure.RATE_LIMITED: "Try again later, or lower QSTASH_PARALLELISM.",
    Failure.UNREADABLE_ANSWER: "Check OPENAI_BASE_URL: does an API answer there?",
    Failure.REQUEST_BLOCKED: "Check OPENAI_BASE_URL, what the key may do, and any gateway.",
    Failure.KEY_REFUSED: "Check OPENAI_API_KEY.",
    Failure.MODEL_NOT_FOUND: "Check OPENAI_MODEL, and that your key may use it.",
    Failure.NO_RESPONSES_API: "Set OPENAI_BASE_URL to a server that has it; see docs/deploy.md.",
    Failure.ONLY_REASONING: "Raise OPENAI_MAX_OUTPUT_TOKENS, or lower OPENAI_REASONING_EFFORT.",
    Failure.REQUEST_REFUSED: "Does the model take OPENAI_REASONING_EFFORT and structured output?",
    Failure.QUOTA_EXCEEDED: "Add credit at OpenAI, or raise the project's limit.",
    Failure.NOT_QUEUED: "The line above has QStash's reason; check QSTASH_TOKEN and the quota.",
    Failure.DELIVERY_FAILED: "Is the service running, and QSTASH_WEBHOOK_URL its public address?",
    Failure.TIMED_OUT: "No delivery came. Is QSTASH_WEBHOOK_URL the service's public address?",
    Failure.TASK_CHANGED: "The service has another common/task.py than this: deploy it anew.",
}
