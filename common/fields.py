"""What models are made of: their base class, types of fields, and which characters can be seen."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

REQUEST_ID_PATTERN = r"^[0-9a-f]{32}$"
RequestId = Annotated[str, StringConstraints(pattern=REQUEST_ID_PATTERN)]


def _in_utc(time: datetime) -> datetime:
    """Replace pydantic's own time zone: one that is left at the interpreter's end crashes it.

    Source: https://github.com/pydantic/pydantic/issues/12867
    """
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("too early or too late") from None


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Model(BaseModel):
    """Frozen, camelCase in JSON, and no validation error repeats what was written."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        # A docstring is for who reads the code; a schema goes to the model.
        json_schema_extra=lambda schema: schema.pop("description", None),
    )


class Tokens(Model):
    """What a model call is charged by, as the provider counted it."""

    model_config = ConfigDict(extra="allow")  # a record keeps what a newer version has written

    input_tokens: Annotated[int, Field(ge=0, le=10**9)]
    output_tokens: Annotated[int, Field(ge=0, le=10**9)]


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def displayable(text: str) -> str:
    """Refuse what no form sends: lone surrogates, control characters but line breaks and tabs."""
    if _CONTROL.search(text):
        raise PydanticCustomError("not_displayable", "control character or surrogate")
    return text


_INVISIBLE = re.compile(
    # Default_Ignorable_Code_Point, where the category doesn't tell
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2065\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e0fff"
    # blank symbols (Braille, music, hieroglyphs) and the placeholder for an object
    "\u2800\U0001d159\U00013441\U00013442\ufffc"
    # noncharacters
    "\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)


# All of it visible, or white space: most texts in Latin letters, and much quicker to tell.
_PLAIN = re.compile("[\t\n\r -~\u00a0-\u00ac\u00ae-\u02ff]*")


def visible(text: str) -> str:
    """Leave out the characters that draw nothing, but keep white space.

    A combining mark draws only on a base character. An unassigned character counts as visible: it
    may be an emoji that is newer than Python's Unicode tables.
    Source: https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point
    """
    if _PLAIN.fullmatch(text):
        return text
    visible, has_base = [], False
    for char in text:
        category = unicodedata.category(char)
        if _INVISIBLE.match(char) or (category in ("Cc", "Cf") and not char.isspace()):
            continue
        if category in ("Mn", "Me") and not has_base:
            continue
        has_base = not char.isspace()
        visible.append(char)
    return "".join(visible)
