// "Your requests in this browser": the one place that keeps ids and owner tokens. It is on the page
// all the time, and so it is what reads aloud, too.

const STORAGE_KEY = "ask-later-requests"; // another name would lose what browsers have kept
const MAX_ENTRIES = 20;
const GONE = "No longer kept";
// The server takes nothing from a message in which an id or a token has another form.
const ID = /^[0-9a-f]{32}$/;
const TOKEN = /^[\w-]{1,100}$/;
const when = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "long", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

const clock = { now: undefined, ahead: 0 }; // ahead: milliseconds, of the server's over this one

export default function ({ parentElement, data, setStateValue }) {
  noteClock(data.now);
  write(update(read(), data));
  if (data.entries.some((entry) => entry.ownerToken)) forgetTyped();
  sendReply(data, setStateValue);
  announce(data.announcement);
  const section = parentElement.querySelector(".requests");
  section.hidden = !data.isShown;
  if (!data.isShown) return;
  const draw = () => drawList(section);
  draw();
  setUpForget(section.querySelector(".forget"), () => {
    write([]);
    draw();
    sendReply(data, setStateValue);
  });
  window.onstorage = draw; // another tab has sent a request, or forgotten all
}

function noteClock(now) {
  if (clock.now === now) return; // a later run of the fragment alone brings the old one
  clock.now = now;
  clock.ahead = Date.parse(now) - Date.now();
}

function read() {
  try {
    const entries = JSON.parse(localStorage.getItem(STORAGE_KEY));
    return Array.isArray(entries) ? entries.filter((entry) => entry?.requestId) : [];
  } catch {
    return []; // no storage in this browser, or not ours
  }
}

function write(entries) {
  try {
    if (JSON.stringify(entries) !== JSON.stringify(read())) {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(entries));
    }
  } catch {
    // Without storage the list stays empty, and the tab itself knows its owner token.
  }
}

// What was typed has been sent: see form.js.
function forgetTyped() {
  try {
    sessionStorage.removeItem("ask-later-typed");
  } catch {
    // no storage in this browser
  }
}

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
  if (region.textContent !== text) region.textContent = text;
}

function drawList(section) {
  const entries = read();
  section.querySelector(".empty").hidden = entries.length > 0;
  section.querySelector(".note").hidden = section.querySelector(".forget").hidden = !entries.length;
  section.querySelector("ul").replaceChildren(...entries.map(drawEntry));
}

function drawEntry(entry) {
  const isKept = entry.state !== GONE && !(Date.parse(entry.keptUntil) < Date.now() + clock.ahead);
  const link = document.createElement("a");
  link.href = `?request=${encodeURIComponent(entry.requestId)}`;
  link.target = "_blank"; // what is being written here stays
  link.rel = "noopener";
  const createdAt = new Date(entry.createdAt);
  link.textContent = isNaN(createdAt) ? entry.requestId : when.format(createdAt);
  const state = document.createElement("span");
  state.textContent = isKept ? entry.state : GONE;
  const item = document.createElement("li");
  item.append(link, state);
  return item;
}

function setUpForget(button, forget) {
  const ask = (isAsked) => {
    button.dataset.asked = isAsked ? "yes" : "";
    button.textContent = isAsked ? "Yes, forget all" : "Forget all";
  };
  button.onblur = () => ask(false);
  button.onclick = () => {
    if (button.dataset.asked) forget();
    ask(!button.dataset.asked);
  };
}
