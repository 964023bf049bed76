"""A browser's tab, whichever the browser: what a person sees in it, presses and writes.

Both protocols take the same description of what mouse and keyboard do, and run the same scripts.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 40  # on a busy machine
CONTROL = "\ue009"  # Source: https://www.w3.org/TR/webdriver2/#keyboard-actions

# Note what went wrong in the page, and what it said so itself.
NOTE_TROUBLE = """() => {
    window.trouble = [];
    addEventListener("error", ({ message }) => trouble.push(message));
    addEventListener("unhandledrejection", ({ reason }) => trouble.push(String(reason)));
    const say = console.error;
    console.error = (...said) => { trouble.push(said.join(" ")); say(...said); };
}"""

# All elements, in what components draw apart, too.
ALL = """const all = (root) => [...root.querySelectorAll("*")].flatMap(
    (each) => [each, ...(each.shadowRoot ? all(each.shadowRoot) : [])]);
const shown = (each) => each.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && each.getBoundingClientRect().width > 1;
const words = (text) => (text ?? "").trim().replace(/\\s+/g, " ");"""

# What can be seen, by its kind and its whole name, a pattern; of kind "any", by a selector.
FIND = f"""{ALL}
const KINDS = {{
    button: "button, [role=button], [role=menuitem], summary, a[download]",
    heading: "h1, h2, h3",
    field: "input, textarea",
}};
const name = (each) => {{
    const read = each.cloneNode(true);
    read.querySelectorAll("[aria-hidden=true]").forEach((unread) => unread.remove());
    return words(each.getAttribute("aria-label") || read.textContent);
}};
const find = (kind, called) => all(document.body).filter((each) => shown(each) && (
    kind === "any" ? each.matches(called)
    : each.matches(KINDS[kind]) && RegExp(`^(?:${{called}})$`).test(name(each))));"""

# Where it can be pressed, once it stands still and nothing lies over it.
POINT = f"""async (kind, called) => {{
    {FIND}
    const target = find(kind, called)[0];
    if (!target) return null;
    target.scrollIntoView({{ block: "center", behavior: "instant" }});
    const place = () => JSON.stringify(target.getBoundingClientRect());
    const before = place();
    await new Promise((done) => setTimeout(done, 100));
    if (place() !== before) return null;
    const {{ x, y, width, height }} = target.getBoundingClientRect();
    const [left, top] = [Math.round(x + width / 2), Math.round(y + height / 2)];
    let hit = document.elementFromPoint(left, top);
    while (hit?.shadowRoot?.elementFromPoint(left, top))
        hit = hit.shadowRoot.elementFromPoint(left, top);
    for (let each = hit; each; each = each.parentElement) if (each === target) return [left, top];
    return null;
}}"""

COUNT = f"(kind, called) => {{ {FIND} return find(kind, called).length; }}"
HREF = f"(selector) => {{ {FIND} return find('any', selector)[0].href; }}"
TEXT = f"(selector) => {{ {FIND} return find('any', selector)[0].innerText; }}"
VALUE = f"(called) => {{ {FIND} return find('field', called)[0]?.value; }}"
READ = """() => {
    const of = (root) => [...root.querySelectorAll("*")].filter((each) => each.shadowRoot)
        .map((each) => [...each.shadowRoot.children].map((inner) => inner.innerText ?? "").join(" ")
            + of(each.shadowRoot)).join(" ");
    return `${document.body.innerText} ${of(document)}`.replace(/\\s+/g, " ");
}"""
RESTS = "() => document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'"

# What can be scrolled sideways, by how much.
SIDEWAYS = """() => [document.documentElement, document.body,
        document.querySelector("[data-testid=stMain]")]
    .map((each) => Math.max(0, each.scrollWidth - each.clientWidth))"""

# From 0, black, to 255, white: what is behind the page.
BRIGHTNESS = """() => {
    const [red, green, blue] = getComputedStyle(document.querySelector(".stApp"))
        .backgroundColor.match(/[\\d.]+/g).map(Number);
    return (red + green + blue) / 3;
}"""

FOREIGN = """() => performance.getEntriesByType("resource").map(({ name }) => name)
    .filter((name) => !/^(data|blob):/.test(name)
        && new URL(name).host !== location.host)"""


class Tab(ABC):
    """Drives one tab. `downloads` is where the browser puts its downloads."""

    def __init__(self, downloads: Path) -> None:
        self.downloads = downloads

    @abstractmethod
    def navigate(self, url: str) -> None:
        """Load a page, and wait until its own scripts have run."""

    @abstractmethod
    def run(self, script: str, *arguments: Any) -> Any:
        """Call a function in the page, and return what it does."""

    @abstractmethod
    def act(self, sources: list[dict[str, Any]]) -> None:
        """Do what the mouse or the keys are told.

        Source: https://www.w3.org/TR/webdriver2/#actions
        """

    @abstractmethod
    def resize(self, width: int, height: int) -> None:
        """Give the page this much room."""

    @abstractmethod
    def picture(self) -> bytes:
        """Take a picture of what can be seen, as PNG."""

    def open(self, url: str) -> None:
        self.navigate(url)
        self.run(NOTE_TROUBLE)

    def press(self, name: str, kind: str = "button") -> None:
        """Click in the middle of it, once that is possible."""
        what = f"{kind} {name} can be pressed"
        x, y = self.wait_for(what, lambda: self.run(POINT, kind, name))
        moves = [
            {"type": "pointerMove", "x": x, "y": y, "duration": 0},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self.act([{"type": "pointer", "id": "mouse", "actions": moves}])

    def write(self, label: str, text: str) -> None:
        """Write into a field by the keyboard."""
        self.press(label, "field")
        self.type(text)
        self.wait_for(f"{label} holds it", lambda: self.run(VALUE, label) == text)

    def type(self, text: str) -> None:
        strokes = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.act([{"type": "key", "id": "keyboard", "actions": strokes}])

    def paste(self, label: str) -> str:
        """Paste into an empty field, and return what came."""
        self.press(label, "field")
        down, up = ({"type": kind, "value": CONTROL} for kind in ("keyDown", "keyUp"))
        key = [{"type": kind, "value": "v"} for kind in ("keyDown", "keyUp")]
        self.act([{"type": "key", "id": "keyboard", "actions": [down, *key, up]}])
        return str(self.wait_for("something was pasted", lambda: self.run(VALUE, label)))

    def expect(self, name: str, kind: str = "heading", times: int = 1) -> None:
        """Wait until so many are to be seen."""
        self.wait_for(f"{times} × {kind} {name}", lambda: self.run(COUNT, kind, name) == times)

    def expect_text(self, text: str) -> None:
        self.wait_for(text, lambda: text in self.run(READ))

    def rest(self) -> None:
        """Wait until nothing runs."""
        self.wait_for("nothing runs", lambda: self.run(RESTS))

    def wait_for(self, what: str, find: Callable[[], Any]) -> Any:
        """Wait until there is something true, and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := find()):
            assert time.monotonic() < deadline, f"not so: {what}\nThe page: {self.run(READ)}"
            time.sleep(0.05)
        return found

    def expect_download(self, ending: str) -> str:
        """Wait until a file with this ending has come whole, and return what is in it."""

        def text() -> str:
            return "".join(file.read_text() for file in self.downloads.glob(f"*{ending}"))

        return str(self.wait_for(f"a file {ending}", text))
