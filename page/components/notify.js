// "Tell me when it's ready": a notification, or else a sound. Drawn in each state: as a button while
// the analysis is unfinished (and a second time as the line about it), as nothing once it is over.

const PREFIX = "ask-later-tell-"; // in this tab's storage: which requests to tell about
const CHANGED = "ask-notify"; // the button tells the line
const svg = (path) =>
  `<svg width="20" height="20" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">${path}</svg>`;
const BELL = svg('<path d="M6 9a6 6 0 0 1 12 0c0 6 2 7 2 8H4c0-1 2-2 2-8M10 20.5a2.2 2.2 0 0 0 4 0"/>');
const TICK = svg('<path d="m5 12.5 4.5 4.5L19 7"/>');
const written = new WeakMap();
const listening = new WeakMap();

export default function ({ parentElement, data }) {
  const find = (selector) => parentElement.querySelector(selector);
  const draw = () => drawState(find, data);
  stopListening(parentElement);
  if (data.part === "over") return tell(data);
  document.addEventListener(CHANGED, draw);
  listening.set(parentElement, draw);
  find("button").onclick = () => press(find, data);
  if (wants(data)) keepSoundReady();
  draw();
  return () => stopListening(parentElement);
}

function stopListening(root) {
  document.removeEventListener(CHANGED, listening.get(root));
}

function drawState(find, { part, requestId, texts }) {
  const isOn = wants({ requestId });
  const button = find("button"), line = find(".line");
  button.hidden = part !== "button";
  line.hidden = part !== "line";
  if (part === "line") {
    write(line, isOn ? (canNotify() ? texts.keepOpen : texts.sound) : texts.howTo);
    return;
  }
  button.classList.toggle("on", isOn);
  find(".icon").innerHTML = isOn ? TICK : BELL;
  write(find(".label"), isOn ? texts.on : texts.off);
}

async function press(find, data) {
  if (wants(data)) {
    remember(data, false);
  } else {
    wakeSound(); // a browser plays only what a press has allowed
    remember(data, true);
    await askPermission();
  }
  document.dispatchEvent(new Event(CHANGED));
  const { texts } = data;
  write(find(".spoken"), wants(data) ? `${texts.on}. ${canNotify() ? "" : texts.sound}` : texts.isOff);
}

// ── Telling ─────────────────────────────────────────────────────────────────────────────────

function tell(data) {
  if (!wants(data)) return;
  remember(data, false); // once
  if (!document.hidden && document.hasFocus()) return; // it is being read
  if (!notify(data)) makeSound();
}

function notify({ requestId, message }) {
  if (!canNotify()) return false;
  try {
    const shown = new Notification(message, { tag: requestId });
    shown.onclick = () => {
      window.focus();
      shown.close();
    };
    return true;
  } catch {
    return false; // some browsers have it for service workers alone
  }
}

const isAndroidChrome = () => /Android.+Chrome\//.test(navigator.userAgent); // only for service workers
const hasNotifications = () => "Notification" in window && isSecureContext && !isAndroidChrome();
const canNotify = () => hasNotifications() && Notification.permission === "granted";

async function askPermission() {
  if (!hasNotifications() || Notification.permission !== "default") return;
  try {
    await Notification.requestPermission();
  } catch {
    // An old browser, or a page within another: there is the sound.
  }
}

// ── Sound ───────────────────────────────────────────────────────────────────────────────────

let sound;

function wakeSound() {
  try {
    sound ??= new AudioContext();
    sound.resume().catch(() => {});
  } catch {
    // No sound in this browser: the tab's title and icon change all the same.
  }
}

// After a reload, whatever is pressed first allows it again.
function keepSoundReady() {
  for (const kind of ["pointerdown", "keydown"]) {
    document.addEventListener(kind, wakeSound, { once: true, capture: true });
  }
}

function makeSound() {
  navigator.vibrate?.([200, 100, 200]);
  if (!sound) return;
  [660, 880].forEach((pitch, number) => {
    const start = sound.currentTime + 0.2 * number;
    const beep = sound.createOscillator(), volume = sound.createGain();
    beep.frequency.value = pitch;
    volume.gain.setValueAtTime(0.2, start);
    volume.gain.exponentialRampToValueAtTime(0.001, start + 0.4);
    beep.connect(volume).connect(sound.destination);
    beep.start(start);
    beep.stop(start + 0.4);
  });
}

// ── What this tab remembers ─────────────────────────────────────────────────────────────────

const unstored = new Set(); // where there is no storage

function wants({ requestId }) {
  try {
    return sessionStorage.getItem(PREFIX + requestId) !== null;
  } catch {
    return unstored.has(requestId);
  }
}

function remember({ requestId }, isWanted) {
  try {
    if (isWanted) sessionStorage.setItem(PREFIX + requestId, "yes");
    else sessionStorage.removeItem(PREFIX + requestId);
  } catch {
    if (isWanted) unstored.add(requestId);
    else unstored.delete(requestId);
  }
}

// A new node, and only for a new text: a browser's translation has put its own in place of the old.
function write(target, text) {
  if (written.get(target) === text) return;
  written.set(target, text);
  target.replaceChildren(text);
}
