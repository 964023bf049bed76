"""What a run comes to: what was taken, lost, paid twice, kept and shown."""

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.evidence import Evidence
from tests.chaos.report import Row


@dataclass
class Run:
    """What was done, and what the witnesses say."""

    planned: int
    accepted: list[str]  # request ids: of programs
    tried: int  # by people in browsers
    sent: list[str]  # … request ids
    shown: list[str]
    restarted: list[int]  # tabs under each restart of a page
    evidence: Evidence
    calls: list[str]  # the claim tokens of all calls that reached the model
    archived: dict[str, str]  # statuses in the history's database
    new_field: str  # what only records of the other version have
    answers: Counter[str] = field(default_factory=Counter)  # to who submitted
    pressed_again: int = 0  # in browsers

    @property
    def ids(self) -> set[str]:
        return {*self.accepted, *self.sent}


def check(run: Run) -> list[Row]:
    """Hold the witnesses against each other: every row's last number must be 0."""
    states = Counter(
        str(record and record["status"])
        for request_id in run.ids
        for record in [run.evidence.records.get(request_id)]
    )
    unlike = sum(run.archived.get(request_id) != "completed" for request_id in run.ids)
    repeated = sum(run.answers.values()) - run.answers["202"]
    both = sum(_is_of_both(run, request_id) for request_id in run.ids)
    missed = set(run.sent) - set(run.shown)
    return [
        Row("submitted through the API", run.planned, run.planned - len(set(run.accepted))),
        Row("… sent again, as an error or no answer had come", repeated, 0, _listed(run.answers)),
        Row("sent from browsers", run.tried, run.tried - len(set(run.sent))),
        Row("… with a press more, as nothing had come in 30 s", run.pressed_again, 0),
        Row("completed, not lost", states["completed"], len(run.ids) - states["completed"]),
        Row(
            "changed after their end",
            len(run.ids),
            sum(_changes_after_end(run.evidence.history[request_id]) for request_id in run.ids),
        ),
        *_calls(run),
        Row("in PostgreSQL, as Redis has them", len(run.archived), unlike + _strangers(run)),
        Row("… with a later delivery, as the database was busy", _late(run), 0),
        Row(
            "written by both versions, one after the other",
            both,
            int(both == 0),
            "" if both else "the two never met",
        ),
        Row("results shown in browsers", len(run.shown), len(missed)),
        Row(
            "… tabs whose page's process was restarted meanwhile",
            sum(run.restarted),
            run.restarted.count(0),
        ),
    ]


def _calls(run: Run) -> list[Row]:
    """The calls that were paid, and those that nothing explains but a fault of ours."""
    owners = {
        raw["claimToken"]: request_id
        for request_id, values in run.evidence.history.items()
        for raw in values
        if raw["claimToken"]
    }
    calls = Counter(owners.get(token, "") for token in run.calls)
    cut_off = run.evidence.cut_off
    more = {
        request_id: max(0, calls[request_id] - 1) for request_id in run.ids if calls[request_id]
    }
    doubled = sum(max(0, count - len(cut_off[one])) for one, count in more.items())
    twice = len(run.calls) - len(set(run.calls))
    return [
        Row("model calls", len(run.calls), twice + calls[""] + len(run.ids) - len(more)),
        Row("processes killed", len(run.evidence.killed), int(not run.evidence.killed)),
        Row("… attempts cut off by that", sum(len(cut_off[one]) for one in run.ids), 0),
        Row("… second calls, each after one that was cut off", sum(more.values()), doubled),
    ]


def _is_of_both(run: Run, request_id: str) -> bool:
    return len({run.new_field in raw for raw in run.evidence.history[request_id]}) == 2


def _late(run: Run) -> int:
    lines = run.evidence.log.splitlines()
    return sum('"store unavailable"' in line and '"database"' in line for line in lines)


def _strangers(run: Run) -> int:
    return len(run.archived.keys() - run.ids)


def _changes_after_end(values: list[dict[str, object]]) -> int:
    ends = [n for n, raw in enumerate(values) if raw["status"] in ("completed", "failed")]
    return len(values) - 1 - ends[0] if ends else 0


def _listed(answers: Counter[str]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(answers.items()))
