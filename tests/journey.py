"""The product with any task in place, and its form in a browser, whatever its fields are."""

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect
from pydantic import ValidationError

from common.form import Form, problems, questions
from common.questions import Kind, Question, in_words
from common.tasks import Task
from tests.documents import copy_project
from tests.processes import ROOT
from tests.toy.task import TASK as TOY

TASK_FILE = Path("common/task.py")
OPTIONAL = " (optional)"
LONG_WORD = 7  # letters; a headline's shorter words are anybody's


def example_files() -> list[Path]:
    """The tasks to copy over the one in use; the folder may be deleted."""
    return sorted((ROOT / "examples").glob("[!_]*.py"))


def load(path: Path) -> Task:
    """The task of a file, loaded beside the one that the tests have in place."""
    name = f"tried_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task: Task = module.TASK
    return task


def copy_with(path: Path, copy: Path) -> Path:
    """Copy the project, this file in place of its task."""
    copy_project(copy)
    (copy / ".venv").symlink_to(sys.prefix)
    if path != ROOT / TASK_FILE:
        shutil.copy(path, copy / TASK_FILE)
    return copy


# ── A form's values ─────────────────────────────────────────────────────────────────────────


def in_json(form: Form) -> dict[str, Any]:
    return form.model_dump(mode="json", by_alias=True)


def untouched(question: Question) -> object:
    """What a field holds when nobody has touched it."""
    if question.default is not None:
        return question.default
    empty = {Kind.CHECKBOX: False, Kind.CHOICES: []}
    return "" if question.kind.is_text else empty.get(question.kind)


def too_much(question: Question) -> object | None:
    """A value over the limit, if there is one that the page lets somebody enter."""
    if question.kind.is_text:
        return "x" * (int(question.at_most) + 1)
    if question.kind.is_number and question.at_most is not None:
        return float(question.at_most + 1)
    return None


def sentences(form: type[Form], values: dict[str, object]) -> dict[str, str]:
    """What is to be said about wrong values, by the field."""
    try:
        form.model_validate(values)
    except ValidationError as error:
        return problems(form, error)
    return {}


# ── The form in a browser ───────────────────────────────────────────────────────────────────


def fill(page: Page, form: type[Form], values: dict[str, Any]) -> None:
    """Put values, as they are in JSON, into the fields; each is found by what it is called."""
    for question in questions(form):
        enter(page, question, values[question.key])
        page.keyboard.press("Tab")  # what was entered counts once the field is left


def written(page: Page, form: type[Form]) -> dict[str, Any]:
    """Read all fields, as `fill` takes them."""
    return {question.key: _read(page, question) for question in questions(form)}


def enter(page: Page, question: Question, value: Any) -> None:
    """Put one value into its field, or empty it."""
    match question.kind:
        case Kind.LINE | Kind.AREA:
            _field(page, "textbox", question).fill(value or "")
        case Kind.WHOLE | Kind.DECIMAL:
            _field(page, "spinbutton", question).fill("" if value is None else f"{value:.15g}")
        case Kind.CHECKBOX:
            _field(page, "checkbox", question).set_checked(bool(value), force=True)
        case Kind.CHOICE:
            _choose(page, question, value)
        case Kind.CHOICES:
            picked = _read(page, question)
            assert isinstance(picked, list)
            for option in value or ():
                if option not in picked:
                    _pick(_field(page, "combobox", question), option)
            page.keyboard.press("Escape")  # the list stays open for more
        case Kind.DATE if value:
            for part, digits in zip(("year", "month", "day"), value.split("-"), strict=True):
                _part_of_date(page, question, part).focus()
                page.keyboard.type(digits)


def _choose(page: Page, question: Question, value: Any) -> None:
    if value is None:
        return
    combobox = _field(page, "combobox", question)
    if combobox.count():
        _pick(combobox, value)
    else:
        _radio(page, question, value).check(force=True)


def _pick(combobox: Locator, option: str | int) -> None:
    combobox.click()
    combobox.page.get_by_role("option", name=in_words(str(option)), exact=True).click()


def _read(page: Page, question: Question) -> object:
    match question.kind:
        case Kind.LINE | Kind.AREA:
            text = _field(page, "textbox", question).input_value()
            return text if text or question.is_required else None
        case Kind.WHOLE | Kind.DECIMAL:
            number = _field(page, "spinbutton", question).input_value()
            return float(number) if number else None
        case Kind.CHECKBOX:
            return _field(page, "checkbox", question).is_checked()
        case Kind.CHOICE:
            return next((o for o in question.options if _is_chosen(page, question, o)), None)
        case Kind.CHOICES:
            box = _field(page, "combobox", question).locator("xpath=ancestor::*[@role='group'][1]")
            picked = box.locator("[data-tag]").all_inner_texts()
            options = {in_words(str(option)): option for option in question.options}
            return [options[text.strip()] for text in picked]
        case Kind.DATE:
            parts = [
                _part_of_date(page, question, part).get_attribute("aria-valuenow")
                for part in ("year", "month", "day")
            ]
            return "-".join(part.zfill(2) for part in parts if part) or None


def _is_chosen(page: Page, question: Question, option: str | int) -> bool:
    combobox = _field(page, "combobox", question)
    if combobox.count():
        return combobox.input_value() == in_words(str(option))
    return _radio(page, question, option).is_checked()


def _radio(page: Page, question: Question, option: str | int) -> Locator:
    group = _field(page, "radiogroup", question)
    return group.get_by_role("radio", name=in_words(str(option)), exact=True)


def _part_of_date(page: Page, question: Question, part: str) -> Locator:
    name = re.compile(rf"^{part}, {re.escape(question.label)}")
    return page.get_by_role("spinbutton", name=name)


def _field(page: Page, role: Any, question: Question) -> Locator:
    """The field with this label, whatever stands in brackets after it."""
    label = re.escape(question.label.removesuffix(OPTIONAL))
    return page.get_by_role(role, name=re.compile(rf"^{label}( \(.*\))?$"))


def expect_fields(page: Page, form: type[Form]) -> None:
    """Wait until the last field is there."""
    last = questions(form)[-1]
    expect(page.get_by_label(last.label.removesuffix(OPTIONAL)).first).to_be_attached()


# ── Its words ───────────────────────────────────────────────────────────────────────────────


def leaves(value: Any) -> Iterator[object]:
    """All that a result in JSON says."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    elif value is not None and value != "":
        yield value


# In a tab: all that can be read, in components too, and what is read aloud only.
TEXT = """() => {
    const texts = [document.title, document.body.innerText];
    const look = (root) => {
        for (const element of root.querySelectorAll("*")) {
            for (const name of ["aria-label", "placeholder", "title"])
                if (element.getAttribute(name)) texts.push(element.getAttribute(name));
            if (!element.shadowRoot) continue;
            for (const child of element.shadowRoot.children)
                if (child.innerText) texts.push(child.innerText);
            look(element.shadowRoot);
        }
    };
    look(document);
    return texts.join("\\n");
}"""


def words_of_others(task: Task, *texts: str) -> set[str]:
    """What the product in these texts has kept of another task: the tests' own, or the one in use.

    Of the tests' own it is any word that gives it away; the one in use may be about anything.
    """
    in_use = load(ROOT / TASK_FILE)
    phrases = {in_use.name, in_use.headline, in_use.description}
    given_away = _words(TOY) | {phrase for phrase in phrases if " " in phrase}
    text, own = "\n".join(texts), _own_text(task)
    return {word for word in given_away if _says(text, word) and not _says(own, word)}


def _words(task: Task) -> set[str]:
    """Its names, those of its fields, the longer words of its sentences."""
    fields = {**task.form.model_fields, **task.result.model_fields}
    titles = {field.title or in_words(name) for name, field in fields.items()}
    longer = re.findall(rf"\w{{{LONG_WORD},}}", f"{task.headline} {task.description}")
    return {task.name, task.noun, _plural(task.noun), *titles, *longer}


def _plural(noun: str) -> str:
    return f"{noun.removesuffix('is')}es" if noun.endswith("is") else f"{noun}s"


def _own_text(task: Task) -> str:
    """All that a task itself may bring onto the page."""
    asked = [
        " ".join((q.key, q.name, q.label, q.hint, q.placeholder, *map(str, q.options)))
        for q in questions(task.form)
    ]
    schema = str(task.result.model_json_schema())
    values = (task.example.model_dump_json(), task.example_result.model_dump_json())
    return "\n".join(
        (task.name, task.noun, task.headline, task.description, *asked, schema, *values)
    )


def _says(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None
