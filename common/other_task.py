"""Inputs and results of a record that was made for another task, before or after a change of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from common.fields import Model
from common.form import Form
from common.result import Result


class OtherForm(Form):
    """An input of another task: kept as it is, for the version that knows it."""

    model_config = ConfigDict(extra="allow")


class OtherResult(Result):
    """A result of another task: kept as it is."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class OfTask:
    """Tells pydantic what a field holds: a `model` of the task in use, or one of another task.

    What fits neither is damaged: a record of this very task fits, as its fingerprint says.
    """

    model: type[Model]
    other: type[Model]
    fingerprint: str  # of the task in use

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._read,
            serialization=core_schema.simple_ser_schema("any"),
        )

    @cached_property
    def _unknown(self) -> Literal["ignore", "forbid"]:
        """In a record unknown fields are ignored: a task before or after this one has them.

        But where none is required, anything would fit.
        """
        is_recognisable = any(each.is_required() for each in self.model.model_fields.values())
        return "ignore" if is_recognisable else "forbid"

    def _read(self, value: Any, info: ValidationInfo) -> Any:
        try:
            return self.model.model_validate(value, extra=self._unknown)
        except ValidationError:
            if not isinstance(value, dict) or info.data.get("task") == self.fingerprint:
                raise
            return self.other.model_validate(value)
