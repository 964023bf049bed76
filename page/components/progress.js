// The waiting, and how it ended. Ticks from absolute times, by the server's clock. What it last
// wrote it remembers: a browser that translates puts other nodes in place of ours.

const ICONS = {
  done: "M5 12.5l4.5 4.5L19 7.5",
  stopped: "M7 7l10 10M17 7L7 17",
  again: "M19.5 11a7.7 7.7 0 1 0-2 6.3M20 4.5V11h-6.5",
  pencil: "M4 20l1-4.5L16.5 4a2.1 2.1 0 0 1 3 0l.5.5a2.1 2.1 0 0 1 0 3L8.5 19z",
  wrench: "M20.5 7a5 5 0 0 1-6.6 5.2L7.6 18.5a1.9 1.9 0 0 1-2.7-2.7l6.3-6.3A5 5 0 0 1 16.4 3l-2.6 2.8.6 2.7 2.7.6z",
};
const SHAPE_NAMES = {
  done: "Done", now: "Now", ahead: "Still ahead", again: "Trying again", stopped: "Stopped",
};
const FULL = { queue: 76.8, writing: 16.8 }; // hundredths of the circle, with room for round ends
const NEARLY = 0.94; // of the writing: only the answer makes it whole
const SAME_TIME = 15_000; // ms; by less, an expected time doesn't move
const ONE_DAY = 86_400_000;
const timeOfDay = format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exactTime = format({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = format({ day: "numeric", month: "short" });
const mounts = new WeakMap();

const lost = {
  isOffline: !navigator.onLine,
  isCutOff: document.documentElement.hasAttribute("data-ask-lost"), // connection.js
  since: undefined,
};
noteConnection({});
window.addEventListener("offline", () => noteConnection({ isOffline: true }));
window.addEventListener("online", () => noteConnection({ isOffline: false }));
document.addEventListener("ask-connection", ({ detail }) => {
  noteConnection({ isCutOff: Boolean(detail?.isLost) });
});

export default function ({ parentElement, data }) {
  const mount = mounts.get(parentElement) ?? { written: new WeakMap() };
  mounts.set(parentElement, mount);
  const parts = findParts(parentElement);
  noteClock(mount, data.now);
  noteReadyAt(mount, data.ring);
  drawFrame(mount, parts, data);

  clearInterval(mount.timer);
  mount.phase = undefined;
  const tick = () => {
    if (!parentElement.host.isConnected) clearInterval(mount.timer);
    draw(mount, parts, data, Date.now() + mount.ahead);
  };
  if (data.ring) mount.timer = setInterval(tick, 250);
  tick();
}

function findParts(root) {
  const names = ["card", "ring", "mark", "time", "unit", "badge", "headline", "line", "note", "steps"];
  const found = names.map((name) => [name, root.querySelector(`.${name}`)]);
  return {
    ...Object.fromEntries(found),
    fold: root.querySelector("details"),
    foldLine: root.querySelector("summary"),
  };
}

// How far the server's clock is ahead of this one. A slow answer makes the difference seem
// smaller than it is, so the largest one counts, until one of the clocks is set.
function noteClock(mount, now) {
  if (mount.now === now) return;
  mount.now = now;
  const ahead = Date.parse(now) - Date.now();
  const isSet = mount.ahead === undefined || Math.abs(ahead - mount.ahead) > 3000;
  mount.ahead = isSet ? ahead : Math.max(ahead, mount.ahead);
}

// Near a full minute, a heading must not go to and fro with each estimate.
function noteReadyAt(mount, ring) {
  const readyAt = ring ? Date.parse(ring.readyAt) : undefined;
  const isSame = Math.abs(readyAt - mount.readyAt) < SAME_TIME; // false for what isn't known
  if (!isSame) mount.readyAt = readyAt;
}

function noteConnection(news) {
  Object.assign(lost, news);
  lost.since = lost.isOffline || lost.isCutOff ? (lost.since ?? Date.now()) : undefined;
}

// ── What stays while it ticks ───────────────────────────────────────────────────────────────

function drawFrame(mount, parts, { state, ring, badge }) {
  const isReady = state === "completed";
  parts.card.dataset.state = state;
  parts.ring.hidden = !ring;
  parts.badge.hidden = !badge;
  parts.line.hidden = isReady;
  parts.fold.hidden = !isReady;
  const place = isReady ? parts.fold : parts.card;
  if (parts.steps.parentNode !== place) place.append(parts.steps);
  if (badge) drawIcon(mount, parts.badge, badge);
  if (!ring) return;
  parts.ring.dataset.part = ring.part;
  drawIcon(mount, parts.mark, ring.part === "retry" ? "again" : "pencil");
}

// ── What ticks ──────────────────────────────────────────────────────────────────────────────

function draw(mount, parts, data, now) {
  const phase = data.phases.find(({ until }) => !until || now < Date.parse(until));
  if (mount.phase !== phase || mount.lostSince !== lost.since) {
    mount.phase = phase;
    mount.lostSince = lost.since;
    drawPhase(mount, parts, data, phase);
  }
  if (data.ring) drawRing(mount, parts, data.ring, phase, now);
}

function drawPhase(mount, parts, { state, ring, steps }, phase) {
  const isLost = Boolean(ring && lost.since);
  const said = isLost ? { ...phase, ...whenLost(mount, ring) } : phase;
  const fill = (text) => text.replace("{at}", () => at(mount.readyAt, timeOfDay));
  parts.ring.classList.toggle("lost", isLost);
  parts.headline.hidden = !said.headline;
  const headline = fill(said.headline);
  write(mount, parts.headline, headline);
  toggle(mount, parts.headline, "wide", headline.length > 25);
  write(mount, state === "completed" ? parts.foldLine : parts.line, said.line);
  write(mount, parts.unit, said.unit);
  drawNote(mount, parts.note, phase.note);
  drawSteps(mount, parts.steps, steps.map((step) => {
    if (isLost && step.shape === "now") return { ...step, note: "last seen" };
    return step.shape === "ahead" ? { ...step, note: fill(step.note || phase.ready) } : step;
  }));
}

function whenLost(mount, ring) {
  return {
    headline: "Planned for about {at}",
    unit: "if all goes well",
    line: `Last seen at ${exactTime.format(lost.since + mount.ahead)}, ${ring.place}`,
  };
}

function drawRing(mount, parts, ring, phase, now) {
  const [start, begin, end] = [ring.startsAt, ring.writesAt, ring.readyAt].map(Date.parse);
  const isWriting = ring.part === "writing";
  const queue = ring.part === "queue" ? share(start, begin, now) : 1;
  const writing = isWriting ? Math.min(NEARLY, share(begin, end, now)) : 0;
  fillArc(mount, parts.ring, "queue", queue);
  fillArc(mount, parts.ring, "writing", writing);
  toggle(mount, parts.ring, "early", writing < 0.4);
  // Past its due time it is still that long, as nobody has begun.
  const left = seconds(end - (isWriting ? now : Math.min(now, begin)));
  const isCounted = phase.counts && left > 0;
  toggle(mount, parts.time, "long", isCounted && left >= 3600);
  write(mount, parts.time, isCounted ? digits(left) : "…");
  if (mount.count) write(mount, mount.count, spoken(seconds(begin - now)));
}

const share = (start, end, now) =>
  Math.min(1, Math.max(0, (now - start) / Math.max(end - start, 1)));

function fillArc(mount, ring, part, filled) {
  const length = (FULL[part] * filled).toFixed(1);
  mount.arcs ??= {};
  if (mount.arcs[part] === length) return;
  mount.arcs[part] = length;
  ring.style.setProperty(`--${part}`, length);
}

// ── Notes and steps ─────────────────────────────────────────────────────────────────────────

function drawNote(mount, target, note) {
  target.hidden = !note;
  if (!isNew(mount, target, JSON.stringify(note))) return;
  mount.count = undefined;
  if (!note) return target.replaceChildren();
  const [before, after] = note.lead.split("{time}");
  const lead = element("strong", "", before);
  if (after !== undefined) {
    mount.count = element("span", "count");
    mount.count.translate = false;
    lead.append(mount.count, after);
  }
  const words = element("span", "words");
  words.append(lead, ` ${note.text}`);
  target.replaceChildren(icon("again"), words);
}

function drawSteps(mount, list, steps) {
  if (isNew(mount, list, JSON.stringify(steps))) list.replaceChildren(...steps.map(drawStep));
}

function drawStep(step) {
  const item = element("li", step.shape);
  if (step.shape === "now" || step.shape === "again") item.setAttribute("aria-current", "step");
  const sign = element("span", "sign");
  sign.setAttribute("aria-hidden", "true");
  if (ICONS[step.shape]) sign.append(icon(step.shape));
  const note = element("small", "", step.note);
  if (step.at) {
    const time = element("time", "", at(Date.parse(step.at), exactTime));
    time.dateTime = step.at;
    time.translate = false;
    note.append(time);
  }
  const name = element("span", "unseen", `${SHAPE_NAMES[step.shape]}: `);
  item.append(sign, name, element("strong", "", step.title), note);
  return item;
}

// ── Nodes and texts ─────────────────────────────────────────────────────────────────────────

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.append(text);
  return made;
}

function icon(name) {
  const [svg, path] = ["svg", "path"].map((tag) =>
    document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function drawIcon(mount, target, name) {
  if (isNew(mount, target, name)) target.replaceChildren(icon(name));
}

// A new text is a new node, also where a browser has put a translation in place of the last.
function write(mount, target, text) {
  if (isNew(mount, target, text)) target.replaceChildren(text);
}

function toggle(mount, target, name, isOn) {
  const key = `is ${name}`;
  if (mount[key] === isOn) return;
  mount[key] = isOn;
  target.classList.toggle(name, isOn);
}

function isNew(mount, target, drawn) {
  if (mount.written.get(target) === drawn) return false;
  mount.written.set(target, drawn);
  return true;
}

// The page's words are English, whatever the browser speaks; the time zone is the visitor's.
function format(options) {
  return new Intl.DateTimeFormat("en-GB", options);
}

function at(time, formatter) {
  const isNear = Math.abs(time - Date.now()) < ONE_DAY / 2;
  return isNear ? formatter.format(time) : `${day.format(time)}, ${timeOfDay.format(time)}`;
}

const seconds = (milliseconds) => Math.max(0, Math.ceil(milliseconds / 1000));

function digits(left) {
  const [hours, rest] = [Math.floor(left / 3600), left % 3600];
  const minutes = Math.floor(rest / 60);
  const end = String(left % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${end}` : `${minutes}:${end}`;
}

function spoken(left) {
  if (!left) return "a moment";
  return left < 120 ? `${left} s` : `${Math.floor(left / 60)} min ${left % 60} s`;
}
