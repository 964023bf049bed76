// What a form needs that Streamlit has no hook for: it keeps in this tab what is typed, until that
// is sent; marks what was refused, and goes there; sends by Ctrl+Enter; opens the explanation.

const STORAGE_KEY = "ask-later-typed"; // requests.js forgets it once a request is sent
const MOST = 300_000; // UTF-16 units: in bytes, less than the page takes as a message
const PAUSE = 150; // milliseconds without a key or a click, after which is kept what is there

const mounts = new WeakMap();
const begun = new WeakMap(); // by the same: which form it looks after, and whether it waits for it
let shownPress = ""; // the latest one whose outcome was shown

export default function ({ parentElement, data, setTriggerValue }) {
  mounts.get(parentElement)?.(); // what an earlier run of the page left
  const listening = new AbortController();
  const observer = new MutationObserver(() => start());
  const on = (type, react, isCaptured = false) =>
    document.addEventListener(type, react, { signal: listening.signal, capture: isCaptured });
  let isStarted = false;
  const start = () => {
    showNote(data);
    if (isStarted || !data.fields.every(isDrawn)) return; // Streamlit loads their code when needed
    isStarted = true;
    data.fields.forEach((field) => mark(field, data.refused));
    showRefused(data);
    if (data.asks) setTriggerValue("drawn", data.formId);
    if (!data.keeps) return;
    if (isToKeep(parentElement, data, setTriggerValue)) keep(data, on, listening.signal);
  };
  on("keydown", (event) => sendByKeys(event, data), true);
  on("click", openExplanation);
  on("ask-example", (event) => setTriggerValue("example", event.detail));
  observer.observe(document.body, { childList: true, subtree: true });
  const stop = () => {
    listening.abort();
    observer.disconnect();
  };
  mounts.set(parentElement, stop);
  start();
  return stop;
}

// ── The fields, as Streamlit draws them ───────────────────────────────────────────────────────

// Its own rule for the class that a key gives.
const find = (field) =>
  document.querySelector(`.st-key-${field.widget.trim().replaceAll(/[^a-zA-Z0-9_-]/g, "-")}`);

const isDrawn = (field) => find(field)?.querySelector("input, textarea");

// What is read aloud as the field, or as a part of it.
function parts(field) {
  const group = find(field).querySelectorAll("[role=radiogroup]");
  return group.length ? group : find(field).querySelectorAll(
    "input[role=combobox], [role=spinbutton], input:not([type=date], [tabindex='-1']), textarea");
}

function read(field) {
  const box = find(field);
  switch (field.kind) {
    case "checkbox":
      return box.querySelector("input").checked;
    case "choice": {
      const radios = [...box.querySelectorAll("input[type=radio]")];
      const index = radios.findIndex((radio) => radio.checked);
      return radios.length ? (index < 0 ? null : index) : box.querySelector("input").value;
    }
    case "choices":
      return [...box.querySelectorAll("[data-tag] [title]")].map((tag) => tag.title);
    case "date":
      return ["year", "month", "day"]
        .map((part) => box.querySelector(`[data-type=${part}]`)?.getAttribute("aria-valuenow") ?? "")
        .join("-");
    default:
      return box.querySelector("input, textarea").value;
  }
}

const readAll = (data) => Object.fromEntries(data.fields.map((field) => [field.key, read(field)]));

// ── What is typed stays in this tab ───────────────────────────────────────────────────────────

// Not yet, if something else is kept: then the form is drawn anew, with that.
function isToKeep(root, data, setTriggerValue) {
  const before = begun.get(root);
  if (before?.formId === data.formId) return !before.isWaiting;
  const kept = stored(), isOfThis = kept?.task === data.task && kept.values;
  const isWanted = !data.formId || kept?.form === data.formId; // else the form begins with others
  const isOther = isOfThis && JSON.stringify(kept.values) !== JSON.stringify(readAll(data));
  const isWaiting = Boolean(isOther && isWanted);
  begun.set(root, { formId: data.formId, isWaiting });
  if (isWaiting) setTriggerValue("typed", kept.values);
  return !isWaiting;
}

function keep(data, on, signal) {
  let timer;
  const store = () => !signal.aborted && data.fields.every(isDrawn) && write(data);
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(store, PAUSE);
  };
  for (const type of ["input", "change", "click", "keyup"]) on(type, later);
  window.addEventListener("pagehide", store, { signal });
  store();
  later(); // a field may be there before what it begins with
}

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE_KEY));
  } catch {
    return null; // no storage in this browser, or not ours
  }
}

function write(data) {
  const text = JSON.stringify({ task: data.task, form: data.formId, values: readAll(data) });
  try {
    if (text.length > MOST) sessionStorage.removeItem(STORAGE_KEY);
    else sessionStorage.setItem(STORAGE_KEY, text);
  } catch {
    // Without storage a reload loses what was typed.
  }
}

// ── What was refused ──────────────────────────────────────────────────────────────────────────

function mark(field, refused) {
  const isRefused = refused.includes(field.key);
  const notes = ["problem", "hint"].map((kind) => `${field.widget}-${kind}`);
  const there = notes.filter((id) => document.getElementById(id));
  for (const part of parts(field)) {
    if (isRefused) part.setAttribute("aria-invalid", "true");
    else part.removeAttribute("aria-invalid");
    if (there.length) part.setAttribute("aria-describedby", there.join(" "));
    else part.removeAttribute("aria-describedby");
    if (field.kind === "line" || field.kind === "area") part.dir = "auto";
  }
}

function showRefused(data) {
  const first = data.fields.find((field) => data.refused.includes(field.key));
  if (!first || shownPress === data.press) return;
  shownPress = data.press;
  const box = find(first);
  (box.querySelector("input:checked") ?? box.querySelector("[role=spinbutton], input, textarea")).focus();
  const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
  box.scrollIntoView({ block: "center", behavior: reduced ? "auto" : "smooth" });
}

function showNote(data) {
  if (!data.press || data.refused.length || shownPress === data.press) return;
  const note = find(data.fields[0])?.closest("[data-testid=stForm]")?.querySelector(".note");
  if (!note) return; // it comes when the request was submitted, or could not be
  shownPress = data.press;
  note.scrollIntoView({ block: "nearest" });
}

// ── Keys and links ────────────────────────────────────────────────────────────────────────────

function sendByKeys(event, data) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const form = find(data.fields[0])?.closest("[data-testid=stForm]");
  const send = form?.querySelector("[data-testid=stFormSubmitButton] button");
  if (!send || !form.contains(event.target)) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.repeat || event.isComposing) return;
  send.focus(); // which leaves the field: only then does what was typed count
  setTimeout(() => send.click());
}

function openExplanation(event) {
  const link = event.target.closest?.("a.opens");
  const fold = link && document.querySelector("details.explanation");
  if (!fold) return;
  event.preventDefault();
  fold.open = true;
  fold.querySelector("summary").focus();
  fold.scrollIntoView({ block: "nearest" });
}
