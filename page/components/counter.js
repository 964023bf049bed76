// How long the text in an area is, as the form will count it.

const ENDS = /^\p{White_Space}+|\p{White_Space}+$/gu;
const mounts = new WeakMap();

export default function ({ parentElement, data }) {
  mounts.get(parentElement)?.(); // what an earlier run of the page left
  const className = `st-key-${data.area.trim().replaceAll(/[^a-zA-Z0-9_-]/g, "-")}`; // as Streamlit's
  const find = () => document.querySelector(`.${className} textarea`);
  const draw = () => drawCount(parentElement, find()?.value ?? "", data);
  const onInput = (event) => event.target === find() && draw();
  const observer = new MutationObserver(() => {
    if (!find()) return; // Streamlit loads the area's code when it is first needed
    observer.disconnect();
    draw();
  });
  const stop = () => {
    document.removeEventListener("input", onInput);
    observer.disconnect();
  };
  mounts.set(parentElement, stop);
  document.addEventListener("input", onInput);
  if (!find()) observer.observe(document.body, { childList: true, subtree: true });
  draw();
  return stop;
}

function drawCount(root, text, { atLeast, atMost }) {
  const written = text.replace(ENDS, "");
  const length = [...written].length; // characters, not UTF-16 units
  const isShort = [...written.replaceAll(/\s+/g, " ")].length < atLeast;
  const isOver = length > atMost;
  const count = root.querySelector(".count"), spoken = root.querySelector("[role=status]");
  const wasOver = count.classList.contains("over");
  count.classList.toggle("over", isOver);
  count.textContent = `${number(length)} of ${number(atMost)} characters`;
  if (isShort) count.textContent += `, at least ${number(atLeast)}`;
  if (isOver !== wasOver) spoken.textContent = isOver ? "The text is too long." : "Short enough.";
}

function number(count) {
  return count.toLocaleString("en");
}
