"""Which tests of Upstash's own suites concern the stand-in, and why the others don't.

Each is chosen, or left out for a reason: one that is new upstream is neither, and is wrong until
somebody has looked at it.
"""

import re
from collections.abc import Mapping, Sequence

Reasons = Mapping[str, Sequence[str]]
CHOSEN = "chosen"
ALONE = "the SDK alone, or before a server of its own"
# Reason: tests. The first that fits counts; "*" is for a part that stays about one thing whatever
# is added to it. Python's tests exist twice, blocking and asyncio.
PYTHON = {
    CHOSEN: [
        "message: publish_to_url",
        "message: publish_to_url_json",
        "message: publish_with_label",
        "message: publish_json_with_label",
        "message: timeout",
        "dlq: dlq_filter",
        "signing_key: get",
    ],
    "LLM": ["message: publish_to_api_*", "message: batch_api_*", "message: enqueue_api_*"],
    "batches": ["message: batch", "message: batch_*"],
    "queues": ["queue: *", "message: enqueue", "message: enqueue_*"],
    "schedules": ["schedules: *"],
    "URL groups": ["url_group: *", "message: publish_to_url_group"],
    "managing flow control": ["flow_control: *"],
    "rates": ["message: publish_with_flow_control"],
    "the log": ["message: message_log_retry_delay_expression", "message: log_filtering_by_label"],
    "cancelling in bulk": ["message: cancel_many", "message: cancel_all"],
    "changing the DLQ": ["dlq: dlq_get_and_delete", "dlq: dlq_get_and_delete_many"],
    ALONE: ["receiver: *", "message: disallow_multiple_destinations"],
}
TYPESCRIPT = {
    CHOSEN: [
        "client: E2E Publish: should publish a message with a label",
        "client: E2E Publish: should publish a message with multiple labels",
        "client: E2E Publish: should publish a json message",
        "client: E2E Publish: should verify qstash server removed forwaded header prefix",
        "client: E2E Publish: should publish a message with a delay",
        "client: E2E Publish: should publish a message and fail then call failure callback",
        "client: E2E Publish: should use global headers",
        "client: E2E Publish: should override global headers",
        "client: E2E Publish: should override global headers with publishJSON if headers are provided",  # noqa: E501
        "messages: Messages: should send message with timeout",
        "messages: Messages: should return cancelled count when cancelling a single message",
        "dlq: DLQ: should force message to DLQ then check if items have a match",
        "dlq: DLQ: should filter requests",
        "dlq: DLQ: should filter DLQ messages by multiple urls (OR semantics)",
    ],
    "workflow": ["workflow/*"],
    "Upstash's development server": ["dev-server/*"],
    "regions": ["multi-region*"],
    "schedules": ["schedules: *"],
    "queues": ["queue: *", "client: E2E Queue: *"],
    "URL groups": ["url-groups: *", "client: E2E Url Group Publish: *"],
    "LLM and e-mail": ["llm/*", "api/*"],
    "batches": ["client: E2E Batch: *", "messages: Messages: should cancel many and all"],
    "redaction": ["client: E2E Redact: *"],
    "the log": ["logs: logs: *", "logs: events (deprecated): *"],
    "managing flow control": ["flow-control: *"],
    "rates": [
        "messages: Messages: should create message with flow control",
        "dlq: DLQ: should get flow control",
    ],
    "not-before": ["client: E2E Publish: should publish a message with a notBefore"],
    "callbacks of success": [
        "client: E2E Publish: should publish a message with a callback",
        "messages: Messages: should send message, cancel it then verify cancel",
    ],
    "cancelling in bulk": [
        "messages: Messages: should cancel all messages *",
        "messages: Messages: should cancel messages by *",
        "messages: Messages: should respect count: 1 *",
    ],
    "searching the DLQ by more than address and id": [
        "dlq: DLQ: should filter requests with urlGroup",
        "dlq: DLQ: should filter DLQ messages by label",
        "dlq: DLQ: should round-trip multiple labels *",
        "dlq: DLQ: should filter DLQ messages by multiple labels (OR semantics)",
        "dlq: DLQ: should filter DLQ messages by flowControlKey",
        "dlq: DLQ: should return undefined cursor on last page of listMessages",
    ],
    "changing the DLQ": [
        "dlq: DLQ: should delete *",
        "dlq: DLQ: should retry *",
        "dlq: DLQ: should respect count: 1 *",
        "dlq: DLQ: should return optional cursor from retry with dlqIds",
        "dlq: DLQ: should return undefined cursor (not empty string) from delete *",
        "dlq: DLQ: should get server error when sending wrong filter field with typo",
    ],
    ALONE: [
        "receiver: *",
        "http: *",
        "utils: *",
        "client: flow control: *",
        "client: Telemetry headers: *",
        "client: Redact Fields: *",
        "client: Client init: *",
        "messages: Messages empty id guard: *",
        "logs: logs - mocked filter url shape: *",
        "dlq: DLQ - mocked *",
        "dlq: DLQ: should return empty result when * is called with an empty array",
        "dlq: DLQ: should throw when * is called with *",
    ],
}


def reason_for(name: str, reasons: Reasons) -> str | None:
    """CHOSEN, why it is left out, or None for a test that nobody has looked at."""
    for reason, patterns in reasons.items():
        for pattern in patterns:
            if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name):
                return reason
    return None
