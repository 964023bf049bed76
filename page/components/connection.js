// The note that the connection is lost, which goes by itself. In place of Streamlit's own dialog.
//
// The rest of the page may listen to the event `ask-connection` ({ detail: { isLost } }) of the
// document; its element has `data-ask-lost` meanwhile.

const BLIP = 1500; // ms; what is shorter is not worth a word
const RETRY = 3000; // ms
const STATE = "data-test-connection-state"; // Streamlit's, on the element of the whole page
const CLOUD =
  '<svg width="22" height="22" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="M9 5.5a7 7 0 0 1 9.3 5A4.5 4.5 0 0 1 21 17.5M17 19H7.5A5.5 5.5 0 0 1 6.3 8.1M3 3l18 18"/></svg>';
const state = () => document.querySelector(`[${STATE}]`)?.getAttribute(STATE) ?? "CONNECTED";
const page = { watched: null, draw: () => {}, lost: undefined, timer: undefined, isReloading: false };

export default function ({ parentElement, data }) {
  const region = parentElement.querySelector("[role=status]");
  page.draw = () => drawNote(region, data.texts[page.lost]);
  page.draw();
  watch();
}

// Once for as long as the page lives, whatever Streamlit draws anew.
function watch() {
  const app = document.querySelector(`[${STATE}]`);
  if (!app || page.watched === app) return;
  if (!page.watched) {
    window.addEventListener("online", look);
    window.addEventListener("offline", look);
    new MutationObserver(dismissDialog).observe(document.body, { childList: true, subtree: true });
  }
  page.watched = app;
  new MutationObserver(look).observe(app, { attributeFilter: [STATE] });
  look();
}

function look() {
  const isConnected = state() === "CONNECTED";
  if (!navigator.onLine) note("offline");
  else if (isConnected) note(undefined);
  else if (page.lost) note("server");
  else page.timer ??= setTimeout(() => note("server"), BLIP);
  if (page.lost || isConnected) page.timer = clearTimeout(page.timer);
  if (state() === "DISCONNECTED_FOREVER") reloadWhenBack();
}

function note(lost) {
  if (page.lost === lost) return;
  const isChange = !page.lost !== !lost;
  page.lost = lost;
  document.documentElement.toggleAttribute("data-ask-lost", Boolean(lost));
  page.draw();
  if (isChange) {
    const detail = { isLost: Boolean(lost) };
    document.dispatchEvent(new CustomEvent("ask-connection", { detail }));
  }
}

function drawNote(region, text) {
  const wanted = JSON.stringify(text ?? "");
  if (region.written === wanted) return; // a browser's translation has put its own nodes there
  region.written = wanted;
  if (!text) return region.replaceChildren();
  const paragraph = document.createElement("p"), strong = document.createElement("strong");
  const words = document.createElement("span");
  paragraph.className = "note";
  paragraph.innerHTML = CLOUD;
  strong.append(text[0]);
  words.append(strong, ` ${text.slice(1).join(" ")}`);
  paragraph.append(words);
  region.replaceChildren(paragraph);
}

// Hidden by page.css, it would still keep the keyboard to itself; closed, it stays away until then.
function dismissDialog() {
  if (state() !== "CONNECTED") document.querySelector("[data-testid=stDialog] button")?.click();
}

// Streamlit has given up: only a new page connects again. What is being written is not thrown away.
async function reloadWhenBack() {
  if (page.isReloading) return;
  page.isReloading = true;
  while (true) {
    await new Promise((resolve) => setTimeout(resolve, RETRY));
    const answer = await fetch("_stcore/health", { cache: "no-store" }).catch(() => undefined);
    if (answer?.ok && !isWriting()) return location.reload();
  }
}

const isWriting = () => Boolean(document.activeElement?.closest("input, textarea")?.value);
