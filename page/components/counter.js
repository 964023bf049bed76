// Under a text: how long it is, as the form will count it, and examples while the form is empty.

const ENDS = /^\p{White_Space}+|\p{White_Space}+$/gu;
const mounts = new WeakMap();
const said = new WeakMap(); // what an element was given to say; a translation changes what it says

export default function ({ parentElement, data }) {
  mounts.get(parentElement)?.(); // what an earlier run of the page left
  const draw = () => {
    if (data.area) drawCount(parentElement, find(data.area)?.value ?? "", data);
    const isEmpty = data.texts.every((text) => !find(text)?.value.replace(ENDS, ""));
    parentElement.querySelector(".examples").classList.toggle("away", !isEmpty);
  };
  const observer = new MutationObserver(() => {
    if (!data.texts.every(find)) return; // Streamlit loads a field's code when it is first needed
    observer.disconnect();
    draw();
  });
  const stop = () => {
    document.removeEventListener("input", draw);
    observer.disconnect();
  };
  mounts.set(parentElement, stop);
  document.addEventListener("input", draw);
  if (!data.texts.every(find)) observer.observe(document.body, { childList: true, subtree: true });
  drawExamples(parentElement, data.examples);
  draw();
  return stop;
}

function find(widget) {
  const className = `st-key-${widget.trim().replaceAll(/[^a-zA-Z0-9_-]/g, "-")}`; // as Streamlit's
  return document.querySelector(`.${className} :is(input, textarea)`);
}

function drawExamples(root, labels) {
  root.querySelector(".examples").hidden = !labels.length;
  const chips = root.querySelector(".chips");
  if (said.get(chips) === labels.join()) return;
  said.set(chips, labels.join());
  chips.replaceChildren(...labels.map((label, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.onclick = () => document.dispatchEvent(new CustomEvent("ask-example", { detail: index }));
    return button;
  }));
}

function drawCount(root, text, { atLeast, atMost }) {
  const written = text.replace(ENDS, "");
  const length = [...written].length; // characters, not UTF-16 units
  const isShort = [...written.replaceAll(/\s+/g, " ")].length < atLeast;
  const isOver = length > atMost;
  const count = root.querySelector(".count"), spoken = root.querySelector("[role=status]");
  const wasOver = count.classList.contains("over");
  count.classList.toggle("over", isOver);
  const range = atLeast ? `${number(atLeast)} to ${number(atMost)}` : `Up to ${number(atMost)}`;
  const least = isShort ? `, at least ${number(atLeast)}` : "";
  say(count, length ? `${number(length)} of ${number(atMost)}${least}` : `${range} characters`);
  if (isOver !== wasOver) say(spoken, isOver ? "The text is too long." : "Short enough.");
}

function say(element, text) {
  if (said.get(element) === text) return;
  said.set(element, text);
  element.replaceChildren(text);
}

function number(count) {
  return count.toLocaleString("en");
}
