// "Your requests on this device": the one place that keeps ids, owner tokens and first words. It is
// on the page all the time, and so it is what reads aloud, too.

const STORAGE_KEY = "ask-later-requests"; // another name would lose what browsers have kept
const WORDS_KEY = "ask-later-first-words"; // "no": they are not kept
const MAX_ENTRIES = 20;
const GONE = "No longer kept";
// The server takes nothing from a message in which an id or a token has another form.
const ID = /^[0-9a-f]{32}$/;
const TOKEN = /^[\w-]{1,100}$/;
const format = (options) => new Intl.DateTimeFormat("en-GB", { hourCycle: "h23", ...options });
const timeOfDay = format({ hour: "2-digit", minute: "2-digit" });
const timeToTheSecond = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayOfYear = format({ day: "numeric", month: "short" });
const wholeDate = format({ day: "numeric", month: "short", year: "numeric" });

const clock = { now: undefined, ahead: 0 }; // ahead: milliseconds, of the server's over this one
const tab = { ready: 0, title: undefined }; // its own title, while another one is there
const mounts = new WeakMap(); // of a section: its rows and timers
const written = new WeakMap(); // what we wrote: a browser that translates puts its own in its place

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  noteClock(data.now);
  store(update(read(), data));
  if (data.entries.some((entry) => entry.ownerToken)) forgetTyped();
  const reply = () => sendReply(data, setStateValue);
  reply();
  announce(data.announcement);
  nameTab(data);
  const section = parentElement.querySelector(".requests");
  section.hidden = !data.isShown;
  const mount = mounts.get(section) ?? { rows: new Map() };
  mounts.set(section, mount);
  const change = (entries) => {
    store(entries);
    drawList(section, mount.rows, change);
    reply();
  };
  if (data.isShown) {
    drawList(section, mount.rows, change);
    setUpFoot(section, change);
  }
  window.onstorage = () => data.isShown && section.isConnected && change(read()); // another tab did it
  repeat(mount, "ticking", section, data.isShown && 1, () => tick(mount.rows));
  repeat(mount, "polling", section, data.pause, () => setTriggerValue("poll", true));
}

// Do something every few seconds, if any, for as long as the section is there.
function repeat(mount, name, section, seconds, act) {
  clearInterval(mount[name]);
  if (!seconds) return;
  mount[name] = setInterval(() => {
    if (section.isConnected) act();
    else clearInterval(mount[name]);
  }, seconds * 1000);
}

function noteClock(now) {
  if (clock.now === now) return; // a later run of the fragment alone brings the old one
  clock.now = now;
  clock.ahead = Date.parse(now) - Date.now();
}

// ── What is kept ──

// A browser may have no storage: then the list stays empty, and the tab itself knows its owner token.
function attempt(act, otherwise) {
  try {
    return act();
  } catch {
    return otherwise;
  }
}

function read() {
  const entries = attempt(() => JSON.parse(localStorage.getItem(STORAGE_KEY)));
  return Array.isArray(entries) ? entries.filter((entry) => entry?.requestId) : []; // if it is ours
}

function store(entries) {
  if (!keepsWords()) entries = entries.map(({ label, ...rest }) => rest);
  const text = JSON.stringify(entries);
  if (text !== JSON.stringify(read())) attempt(() => localStorage.setItem(STORAGE_KEY, text));
}

const keepsWords = () => attempt(() => localStorage.getItem(WORDS_KEY) !== "no", true);
const keepWords = (isKept) =>
  attempt(() => localStorage.setItem(WORDS_KEY, isKept ? "yes" : "no"));

// What was typed has been sent: see form.js.
const forgetTyped = () => attempt(() => sessionStorage.removeItem("ask-later-typed"));

// Known requests take over what is new about them; an unknown one is kept only with its token.
function update(entries, { entries: news, forget }) {
  const known = new Map(entries.map((entry) => [entry.requestId, entry]));
  for (const fresh of news) {
    if (!known.has(fresh.requestId) && !fresh.ownerToken) continue;
    const given = Object.fromEntries(Object.entries(fresh).filter(([, value]) => value !== null));
    known.set(fresh.requestId, { ...known.get(fresh.requestId), ...given });
  }
  known.delete(forget);
  return [...known.values()]
    .sort((one, other) => String(other.createdAt).localeCompare(String(one.createdAt)))
    .slice(0, MAX_ENTRIES);
}

// The server gets no more than it needs: one owner token, or the ids whose state may have changed.
// It sends back what it accepted, with the fields in this order. A reply that differs from that is
// sent, and must be one that is accepted, or it would be sent again and again.
function sendReply(data, setStateValue) {
  const entries = read().filter((entry) => has(entry.requestId, ID));
  const wanted = entries.find((entry) => entry.requestId === data.wanted);
  const unfinished = data.isShown ? entries.filter((entry) => !entry.isOver) : [];
  const reply = {
    wanted: data.wanted,
    requestId: wanted?.requestId ?? null,
    ownerToken: has(wanted?.ownerToken, TOKEN) ? wanted.ownerToken : null,
    unfinished: unfinished.slice(0, MAX_ENTRIES).map((entry) => entry.requestId),
  };
  if (JSON.stringify(reply) !== JSON.stringify(data.reply)) setStateValue("reply", reply);
}

const has = (value, form) => typeof value === "string" && form.test(value);

// ── What is said ──

// One live region for as long as the tab lives: a new one would not be read aloud.
function announce(text) {
  let region = document.getElementById("announcer");
  if (!region) {
    region = document.createElement("div");
    region.id = "announcer";
    region.setAttribute("role", "status"); // implies aria-live="polite"
    region.style.cssText = "position:fixed;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
    document.body.append(region);
  }
  write(region, text);
}

// Say in the tab's title that one has become ready, until somebody comes back to the tab.
function nameTab({ ready, title }) {
  if (ready > tab.ready) {
    tab.title ??= document.title;
    document.title = title;
    window.addEventListener("focus", takeTitleBack, { once: true });
  } else if (!ready) {
    tab.title = undefined; // another page, which has named the tab itself
  }
  tab.ready = ready;
}

function takeTitleBack() {
  if (tab.title !== undefined) document.title = tab.title;
  tab.title = undefined;
}

function write(node, text) {
  if (written.get(node) === text) return;
  written.set(node, text);
  node.replaceChildren(text);
}

// ── What is drawn ──

function drawList(section, rows, change) {
  const entries = read(), list = section.querySelector("ul");
  section.querySelector(".empty").hidden = entries.length > 0;
  section.querySelector(".foot").hidden = !entries.length && keepsWords();
  const toggle = section.querySelector(".keep");
  write(toggle, keepsWords() ? "Don't keep first words" : "Keep first words");
  for (const name of [".foot > p", ".clear"]) section.querySelector(name).hidden = !entries.length;
  const before = new Map(rows);
  rows.clear();
  entries.forEach((entry, index) => {
    const id = JSON.stringify(entry.requestId);
    const row = before.get(id) ?? makeRow(section);
    rows.set(id, row);
    const hasTwin = entries.some((other) => other !== entry && labelOf(other) === labelOf(entry));
    drawRow(row, entry, hasTwin, () => remove(section, row, id, change));
    if (list.children[index] !== row.item) list.insertBefore(row.item, list.children[index] ?? null);
  });
  while (list.children.length > entries.length) list.lastElementChild.remove();
  tick(rows);
}

function makeRow(section) {
  const item = section.querySelector("template").content.firstElementChild.cloneNode(true);
  const names = ["a", "b", "small", ".when", ".arc", ".chevron", ".remove"];
  const [link, title, note, when, arc, chevron, button] = names.map((n) => item.querySelector(n));
  return { item, link, title, note, when, arc, chevron, button };
}

function drawRow(row, entry, hasTwin, remove) {
  const isKept = entry.state !== GONE && !(Date.parse(entry.keptUntil) < now());
  const label = labelOf(entry), sent = new Date(entry.createdAt);
  row.entry = entry;
  row.mark = isKept ? markOf(entry) : "gone";
  row.state = isKept ? String(entry.state ?? "") : GONE;
  row.isOfNoUse = !isKept || Boolean(entry.isLost) || !has(entry.requestId, ID);
  row.item.dataset.mark = row.mark;
  row.link.href = `?request=${encodeURIComponent(entry.requestId)}`;
  row.link.onclick = takeTitleBack;
  const time = isNaN(sent) ? String(entry.requestId) : capital(whenSent(sent, toTheSecond));
  const title = label || time;
  write(row.title, title);
  row.title.translate = !label;
  const isTold = label && !isNaN(sent);
  write(row.note, noteOf(row, isTold ? whenSent(sent, hasTwin ? toTheSecond : brief) : ""));
  row.chevron.style.display = row.isOfNoUse ? "none" : "";
  row.button.hidden = !row.isOfNoUse;
  row.button.setAttribute("aria-label", `Remove: ${title}`);
  row.button.onclick = (event) => event.detail < 2 && remove(); // the next one is where it was
}

const labelOf = ({ label }) => (typeof label === "string" ? label : "");

function markOf({ mark, state, isOver }) {
  if (mark) return mark;
  return state === "Ready" ? "ready" : isOver ? "gone" : "waiting"; // an earlier version kept none
}

function noteOf({ entry, mark, state, isOfNoUse }, sent) {
  const until = new Date(entry.keptUntil);
  const isKept = mark !== "waiting" && !isNaN(until);
  const rest = isOfNoUse || mark === "waiting" ? state : isKept ? `Kept until ${brief(until)}` : "";
  return capital(sent && rest ? `${sent} · ${rest[0].toLowerCase()}${rest.slice(1)}` : sent || rest);
}

const now = () => Date.now() + clock.ahead;
const isToday = (date) => wholeDate.format(date) === wholeDate.format(now());
const isThisYear = (date) => date.getFullYear() === new Date(now()).getFullYear();
const day = (date) => (isThisYear(date) ? dayOfYear : wholeDate).format(date);
const brief = (date) => (isToday(date) ? timeOfDay.format(date) : day(date));
const toTheSecond = (date) => (isToday(date) ? "" : `${day(date)}, `) + timeToTheSecond.format(date);
const whenSent = (date, inWords) => (isToday(date) ? "sent " : "") + inWords(date);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// What changes by itself: how long each still takes.
function tick(rows) {
  for (const { entry, mark, state, when, arc, isOfNoUse } of rows.values()) {
    const begun = Date.parse(entry.begunAt), ready = Date.parse(entry.readyAt);
    const isTimed = mark === "waiting" && begun < ready;
    const seconds = isTimed ? Math.ceil((ready - now()) / 1000) : 0;
    when.translate = seconds <= 0; // else "left" is taken for the opposite of right
    const left = seconds > 0 ? `${minutes(seconds)} left` : isTimed ? "Any moment" : "";
    write(when, isOfNoUse ? "" : mark === "waiting" ? left : state);
    const share = isTimed ? Math.min(Math.max((now() - begun) / (ready - begun), 0.03), 0.97) : 0.25;
    arc.style.strokeDasharray = `${100 * share} 200`;
  }
}

const minutes = (seconds) =>
  seconds < 3600
    ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`
    : `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;

// ── What can be done ──

function remove(section, row, id, change) {
  const next = row.item.nextElementSibling ?? row.item.previousElementSibling;
  change(read().filter(({ requestId }) => JSON.stringify(requestId) !== id));
  (next?.querySelector("a") ?? section.querySelector("h2")).focus();
}

// The question never comes where the pointer is: there is what takes it back.
function setUpFoot(section, change) {
  const [foot, clear, keep, asked, yes] =
    [".foot", ".clear", ".keep", ".asked", ".yes"].map((name) => section.querySelector(name));
  const ask = (isAsked) => {
    asked.hidden = !isAsked;
    write(clear, isAsked ? "Keep the list" : "Clear the list");
    keep.hidden = isAsked;
  };
  write(clear, asked.hidden ? "Clear the list" : "Keep the list");
  clear.onclick = (event) => {
    if (event.detail > 1) return; // of a double click, the first one counts
    ask(asked.hidden);
    clear.focus(); // what is left by the focus takes the question back
  };
  yes.onmousedown = (event) => event.preventDefault(); // not every browser gives a button the focus
  yes.onclick = () => {
    ask(false);
    change([]);
    section.querySelector("h2").focus();
  };
  keep.onclick = () => {
    keepWords(!keepsWords());
    change(read());
  };
  clear.onblur = yes.onblur = ({ relatedTarget }) => foot.contains(relatedTarget) || ask(false);
  foot.onkeydown = ({ key }) => key === "Escape" && ask(false);
}
