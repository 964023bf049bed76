"""Times and durations, as the page says them."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def in_zone(time: datetime, timezone: str | None, form: str) -> str:
    """A time in the visitor's zone, in the form of `strftime`."""
    try:
        zone, suffix = ZoneInfo(timezone or "UTC"), ""
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory, too long
        zone, suffix = ZoneInfo("UTC"), " UTC"
    return f"{time.astimezone(zone):{form}}{suffix}"


def seconds_between(start: datetime, end: datetime) -> timedelta:
    """How long it was by a clock that shows whole seconds, so that parts add up to the whole."""
    return end.replace(microsecond=0) - start.replace(microsecond=0)


def short(duration: timedelta) -> str:
    """`under 1 s`, `8 s`, `62 s`, `2 min 5 s`, `2 h`."""
    seconds = round(duration.total_seconds())
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 else "")
    return f"{round(seconds / 3600)} h"


def about(duration: timedelta) -> str:
    """`about 20 seconds`, `about a minute`, `about 2 minutes`, `about an hour`."""
    seconds = duration.total_seconds()
    if 50 <= seconds < 90:
        return "about a minute"
    if 90 <= seconds < 3300:
        return f"about {round(seconds / 60)} minutes"
    return f"about {spoken(duration)}".replace("one hour", "an hour")


def spoken(duration: timedelta) -> str:
    """`5 seconds`, `one minute`, `90 minutes`, `2 hours`: never off by more than a tenth."""
    seconds = round(duration.total_seconds())
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        number = round(seconds / size)
        if number >= (2 if unit == "day" else 1) and abs(number * size - seconds) <= seconds / 10:
            return f"one {unit}" if number == 1 else f"{number} {unit}s"
    return "no time"
