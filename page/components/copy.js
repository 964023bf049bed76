// Buttons that copy a text, or hand a link to the system's sheet, and then show that they did.

const SHOWN_FOR = 2000; // ms
const COPY_KEYS = /Mac|iP(hone|ad|od)/.test(navigator.platform) ? "⌘C" : "Ctrl+C";
const mounts = new WeakMap();

export default function ({ parentElement, data }) {
  const row = parentElement.querySelector(".row");
  const labels = data.buttons.map((button) => button.label);
  if (mounts.get(parentElement) !== labels.join()) {
    mounts.set(parentElement, labels.join());
    row.classList.toggle("big", labels.length > 1);
    row.replaceChildren(...data.buttons.map(makeButton));
  }
  data.buttons.forEach((given, number) => {
    const button = row.children[number];
    button.onclick = () => press(parentElement, button, given);
  });
}

function makeButton({ label, sharedAs }) {
  const button = document.createElement("button");
  button.type = "button";
  if (sharedAs) button.className = "primary";
  button.append(document.createElement("span"));
  show(button, label);
  return button;
}

async function press(root, button, given) {
  const said = await act(root, given);
  if (!said) return;
  const spoken = root.querySelector("[role=status]");
  button.style.minWidth = `${button.offsetWidth}px`; // what is beside it stays where it is
  show(button, said);
  spoken.replaceChildren(said);
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    show(button, given.label);
    spoken.replaceChildren();
    button.style.minWidth = "";
  }, SHOWN_FOR);
}

// What there is to say about it; nothing where the system's sheet says it.
async function act(root, { text, sharedAs }) {
  if (sharedAs && navigator.share && matchMedia("(pointer: coarse)").matches) {
    try {
      await navigator.share({ title: sharedAs, url: text });
      return "";
    } catch (error) {
      if (error.name === "AbortError") return ""; // the person closed it
    }
  }
  if (!(await copy(root.querySelector(".by-hand"), text))) return `Press ${COPY_KEYS}`;
  return sharedAs ? "Link copied ✓" : "Copied ✓";
}

// Where the browser copies nothing, the text is shown and selected.
async function copy(area, text) {
  area.hidden = true;
  try {
    await navigator.clipboard.writeText(text); // only with https, or on this machine
    return true;
  } catch {
    area.value = text;
    area.hidden = false;
    area.focus();
    area.select();
    area.scrollTop = 0;
    area.hidden = document.execCommand("copy");
    return area.hidden;
  }
}

// A new node: a browser that translates puts another one in its place.
function show(button, text) {
  button.firstElementChild.replaceChildren(text);
}
