"""What the witnesses of a run say: Redis, its file, the history, the model, the browsers."""

from benchmarks.scale.check import Run
from benchmarks.scale.drill import Story
from benchmarks.scale.site import NEW_FIELD_IN_JSON, Site
from benchmarks.scale.tabs import Seen
from tests.chaos.evidence import Evidence
from tests.chaos.history import read_history


def gather(site: Site, number: int, seen: Seen, story: Story) -> Run:
    """Ask all witnesses when everything is over."""
    ids = [*story.accepted.values(), *seen.sent]
    evidence = Evidence(
        site.records(ids),
        read_history(site.directory / "redis"),
        ledger=[],
        log=site.log(),
        qstash_log=site.qstash_log(),
        killed=site.killed,
    )
    return Run(
        planned=number,
        accepted=list(story.accepted.values()),
        tried=seen.tried,
        sent=seen.sent,
        shown=seen.shown,
        restarted=seen.restarted,
        evidence=evidence,
        calls=site.calls(),
        archived=site.archived(),
        new_field=NEW_FIELD_IN_JSON,
        answers=story.answers,
        pressed_again=seen.pressed_again,
    )
