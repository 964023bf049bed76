"""How the peers' workers are started, for any number of calls in flight.

The tries behind each choice are in README.md. Nothing is imported that the standard library
lacks: the benchmark reads this from another environment.
"""

from collections.abc import Callable

Commands = list[list[str]]


def celery(python: str, calls: int, pool: str, processes: int) -> Commands:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    run = [python, "-m", "celery", "--app", "benchmarks.peers.celery_app", "worker", *quiet]
    return [
        [*run, "--pool", pool, "--concurrency", str(share), "--hostname", f"{index}@%h"]
        for index, share in enumerate(_shares(calls, processes))
    ]


def dramatiq(python: str, calls: int, processes: int) -> Commands:
    threads = str(_shares(calls, processes)[0])
    run = [python, "-m", "dramatiq", "benchmarks.peers.dramatiq_app"]
    return [[*run, "--processes", str(processes), "--threads", threads]]


def huey(python: str, calls: int, processes: int) -> Commands:
    run = [python, "-m", "huey.bin.huey_consumer", "benchmarks.peers.huey_app.huey"]
    options = ["--quiet", "--no-periodic", "--worker-type", "thread"]
    return [[*run, *options, "--workers", str(share)] for share in _shares(calls, processes)]


def rq(python: str, calls: int) -> Commands:
    options = ["--config", "benchmarks.peers.rq_app", "--worker-class", "rq.SimpleWorker"]
    return [[python, "-m", "rq.cli", "worker-pool", *options, "--quiet", "-n", str(calls), "peers"]]


def arq(python: str, calls: int, processes: int) -> Commands:
    run = [python, "-m", "arq", "benchmarks.peers.arq_app.WorkerSettings"]
    return [["env", f"ARQ_MAX_JOBS={share}", *run] for share in _shares(calls, processes)]


def _shares(calls: int, processes: int) -> list[int]:
    """Split the calls: `_shares(5, 2) == [3, 2]`."""
    return [(calls + index) // processes for index in reversed(range(processes))]


WORKERS: dict[str, Callable[[str, int], Commands]] = {
    "celery threads": lambda python, calls: celery(python, calls, "threads", 2),
    "celery gevent": lambda python, calls: celery(python, calls, "gevent", 2),
    "dramatiq 2 processes": lambda python, calls: dramatiq(python, calls, 2),
    "dramatiq 4 processes": lambda python, calls: dramatiq(python, calls, 4),
    "huey threads": lambda python, calls: huey(python, calls, 2),
    "rq": rq,
    "arq": lambda python, calls: arq(python, calls, 1),
}
