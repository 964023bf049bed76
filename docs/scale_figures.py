"""Writes docs/scale.md, from measured figures and list prices: `make settings`.

What is measured is quoted as docs/reports/performance.md has it; a test looks for it there.
"""

from math import ceil
from typing import NamedTuple

ANALYSES = 1_000_000  # a day
PEAK = 5  # times the mean
DAYS = 30  # of a month, and HISTORY_DAYS
SECONDS = 86_400
RETRIES = 0.01  # deliveries beyond the first, for each analysis
QUEUE, WRITING = 60, 6.5  # seconds: QSTASH_DELAY, and 3 to 10 of the model
TOKENS_IN, TOKENS_OUT = 500, 250

# Measured; the text is what the report says.
COMMANDS = 8  # counted by tests/operations/statistics/test_costs.py, which fails if it changes
HISTORY_COMMANDS = 1
REDIS_MB = 966.92  # for a million stored
SERVICE_MS = 4.91  # processor time of a delivery, at a steady pace
CALL_KB = 170  # memory of a call in flight
PEOPLE, LOOKS, RUNS, PAGE_CORE = 300, 95, 19, 0.48  # one page process
RUN_MS = 10  # of the whole page; sending takes three: the form, the press, the waiting page
QUOTED = (
    "eight with every limit, nine with a history",
    "| Redis, MB | 4.75 | 99.34 | 966.92 |",
    "| **this project** | 11.00 s |  | 91 | 5 ms | 7 ms | 4.91 | 192 |",
    "170 kB each beyond the service at rest",
    "a process had to do 95 looks and 19 runs of the whole page a second: 0.48 of a core",
    "A run of the whole page costs 10 ms of processor time",
)
ROW_KB = 1.34  # in PostgreSQL, with indexes: docs/reports/scale.md
WORKERS, PG_CONNECTIONS, PG_MOST = 4, 4, 100  # of a service; of a process; PostgreSQL's default


class Plan(NamedTuple):
    """A fixed plan: dollars a month, and its two limits."""

    name: str
    price: int
    first: float
    second: float

    @classmethod
    def smallest(cls, plans: "tuple[Plan, ...]", first: float, second: float) -> "Plan":
        return next(plan for plan in plans if plan.first >= first and plan.second >= second)


QSTASH = (Plan("Fixed 1M", 180, 1e6, 200), Plan("Fixed 10M", 420, 1e7, 1000))  # a day, at once
REDIS = (  # GB of data, GB of traffic a month
    Plan("Fixed 1GB", 20, 1, 100),
    Plan("Fixed 5GB", 100, 5, 500),
    Plan("Fixed 10GB", 200, 10, 1000),
    Plan("Fixed 50GB", 400, 50, 5000),
)
REDIS_MOST = 10_000  # commands a second
POSTGRES_PRICE, STORAGE_PRICE = 94.90, 0.23  # db.t4g.medium in two zones; a GB there
MODEL_IN, MODEL_OUT = 0.75, 4.50  # gpt-5.4-mini, for a million tokens

MEAN = ANALYSES / SECONDS
TOP = MEAN * PEAK
LIFE = QUEUE + WRITING
POLLS = round((LOOKS + RUNS) * LIFE / PEOPLE)
ALL_COMMANDS = COMMANDS + HISTORY_COMMANDS + POLLS
WAITING = TOP * LIFE
IN_FLIGHT = TOP * WRITING
PAGES = ceil(WAITING / PEOPLE)
PAGE_CORES = WAITING / PEOPLE * PAGE_CORE + TOP * 3 * RUN_MS / 1000
SERVICE_CORES = TOP * SERVICE_MS / 1000
REDIS_GB = TOP * 3600 * REDIS_MB / 1e9
TRAFFIC_GB = ANALYSES * DAYS * ALL_COMMANDS / 1e6
MESSAGES = ANALYSES * (1 + RETRIES)
ROWS = ANALYSES * DAYS
ROWS_GB = ROWS * ROW_KB / 1e6
CONNECTIONS = PG_CONNECTIONS * (2 * WORKERS + PAGES)
TOKENS_A_MINUTE = TOP * 60 * (TOKENS_IN + TOKENS_OUT)
MODEL_COST = ANALYSES * DAYS * (TOKENS_IN * MODEL_IN + TOKENS_OUT * MODEL_OUT) / 1e6


def page() -> str:
    """The whole page."""
    return f"{needed()}\n{money()}\n{limits()}"


def needed() -> str:
    """What a million a day need, on average and at the peak."""
    return f"""\
# A million a day

[Two services and two pages](reports/scale.md) on one small machine lose nothing and pay for nothing
twice. From there to a million analyses a day it is arithmetic. `make settings` writes this page from
`docs/scale_figures.py`: change a figure there, and the rest follows.

Assumed: a peak of {PEAK} times the mean; everybody uses the page and waits until the result is there,
{QUEUE} s in the queue and {WRITING} s of writing; {RETRIES:.0%} of deliveries come twice; {TOKENS_IN} tokens in
and {TOKENS_OUT} out; history on, {DAYS} days. Everything else is [measured](reports/performance.md).

| | mean | peak | how |
|---|--:|--:|---|
| analyses a second | {MEAN:.1f} | {TOP:.0f} | {ANALYSES:,} ÷ {SECONDS:,} s |
| people waiting | {MEAN * LIFE:,.0f} | {WAITING:,.0f} | × {LIFE} s |
| calls in flight | {MEAN * WRITING:.0f} | {IN_FLIGHT:.0f} | × {WRITING} s |
| commands to Redis a second | {MEAN * ALL_COMMANDS:,.0f} | {TOP * ALL_COMMANDS:,.0f} | {COMMANDS} until settled \
with every limit, {HISTORY_COMMANDS} of the history, {POLLS} polls |
| messages of QStash a day | {MESSAGES:,.0f} | | with retries |
| cores of the service | {MEAN * SERVICE_MS / 1000:.2f} | {SERVICE_CORES:.2f} | × {SERVICE_MS} ms |
| memory of calls, MB | {MEAN * WRITING * CALL_KB / 1000:.0f} | {IN_FLIGHT * CALL_KB / 1000:.0f} | × {CALL_KB} kB |
| page processes | {ceil(MEAN * LIFE / PEOPLE)} | {PAGES} | {PEOPLE} people each |
| cores of the page | {PAGE_CORES / PEAK:.1f} | {PAGE_CORES:.1f} | {PAGE_CORE} for {PEOPLE} people, and three \
runs of {RUN_MS} ms to send |
| Redis, GB | {REDIS_GB / PEAK:.2f} | {REDIS_GB:.2f} | {REDIS_MB:.0f} bytes each, for an hour |
| PostgreSQL, rows | {ROWS:,} | | {ROWS_GB:.0f} GB, {ROW_KB} kB each with indexes |
| connections to PostgreSQL, at most | | {CONNECTIONS} | {PG_CONNECTIONS} for each of 2 × {WORKERS} workers \
and {PAGES} pages |
| tokens a minute | {TOKENS_A_MINUTE / PEAK:,.0f} | {TOKENS_A_MINUTE:,.0f} | {TOKENS_IN + TOKENS_OUT} each |

`tests/operations/statistics/test_costs.py` counts the commands; polls come from the crowd in
[People who wait](reports/performance.md#people-who-wait): {LOOKS} looks and {RUNS} runs a second for {PEOPLE}.
Two services, so that one may fail.
"""


def money() -> str:
    """What it costs by the vendors' list prices."""
    qstash = Plan.smallest(QSTASH, MESSAGES, IN_FLIGHT)
    redis = Plan.smallest(REDIS, REDIS_GB, TRAFFIC_GB)
    database = POSTGRES_PRICE + ROWS_GB * STORAGE_PRICE
    by_use = MESSAGES * DAYS / 1e5
    return f"""\
## Money a month

| | $ | plan |
|---|--:|---|
| OpenAI | {MODEL_COST:,.0f} | gpt-5.4-mini: ${MODEL_IN:.2f} and ${MODEL_OUT:.2f} for a million tokens in and out |
| QStash | {qstash.price:,} | {qstash.name}: {qstash.first / 1e6:.0f} million a day, {qstash.second:,.0f} at once. \
By use: {by_use:,.0f}, but 100 at once |
| Redis | {redis.price:,} | Upstash {redis.name}, for {TRAFFIC_GB:,.0f} GB of traffic (1 kB a command). \
By use: {ALL_COMMANDS * ANALYSES * DAYS * 0.2 / 1e5:,.0f} |
| PostgreSQL | {database:,.0f} | Amazon RDS db.t4g.medium in two zones, {ROWS_GB:.0f} GB |

Machines for {SERVICE_CORES + PAGE_CORES:.0f} cores are not in it: prices differ too much. The model is {MODEL_COST / (MODEL_COST + qstash.price + redis.price + database):.0%} of the sum.

List prices, as found in November 2026: [QStash](https://upstash.com/pricing/qstash.md) (one page there
counts retries as messages, another calls them free: they are counted here),
[Redis](https://upstash.com/pricing/redis), [OpenAI](https://developers.openai.com/api/docs/pricing)
(read from [Vercel's list](https://vercel.com/ai-gateway/models/openai/gpt-5.4-mini.md)). The database's comes
[second-hand](https://infratally.com/articles/aws-rds-pricing-explained-2026.html), and its storage is
taken as twice $0.115.
"""


def limits() -> str:
    """What breaks first, and what to do then."""
    return f"""\
## What breaks first

In this order:

1. **The limits that are on by default**, and should: `DAILY_ANALYSES` (5,000), `SUBMISSIONS_PER_HOUR`,
   `MOST_WAITING`, `DAILY_TOKENS`. Set them to what you can pay.
2. **OpenAI's rate limit**: {TOP * 60:,.0f} requests and {TOKENS_A_MINUTE / 1e6:.1f} million tokens a minute. It
   depends on your tier; we found no published number for this model. Beyond it calls fail and are retried,
   three at most: set `QSTASH_PARALLELISM` so low that this doesn't happen, and people wait longer instead.
3. **QStash's parallelism**: {IN_FLIGHT:.0f} at once is more than its smaller plans allow. What is more
   waits, and every analysis has its deadline, 10 minutes after it was due.
4. **A page process**, beyond {PEOPLE} who wait: add processes. Each visitor keeps to one
   ([how](deploy.md#more-than-one-of-each)); one that is restarted loses nobody.
5. **PostgreSQL's connections**: {CONNECTIONS} of its usual {PG_MOST}. With more processes put PgBouncer in
   front, or raise `max_connections`. What the history can't take at once comes with a later delivery.
6. **The one Redis**: {TOP * ALL_COMMANDS / REDIS_MOST:.0%} of the {REDIS_MOST:,} commands a second that the plan
   allows. It can't be a cluster, as the limits are one script over several keys. Beyond, split the site:
   a second Redis with its own pages and services.

The service comes last: it needs {SERVICE_CORES:.1f} of a core.
"""


if __name__ == "__main__":
    print(page(), end="")
