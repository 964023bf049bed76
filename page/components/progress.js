// The ring and the timeline. Ticks from absolute times, by the server's clock.

const SIGNS = { done: "✓", now: "", ahead: "", stopped: "✕" };
const SHAPE_NAMES = { done: "Done", now: "Now", ahead: "Still ahead", stopped: "Stopped here" };
const timeOfDay = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const mounts = new WeakMap();

export default function ({ parentElement, data }) {
  const mount = mounts.get(parentElement) ?? {};
  mounts.set(parentElement, mount);
  noteClock(mount, data.now);
  drawSteps(mount, parentElement.querySelector(".steps"), data.steps);

  clearInterval(mount.timer);
  const tick = () => {
    if (!parentElement.host.isConnected) clearInterval(mount.timer);
    drawClock(parentElement, data.clock, Date.now() + mount.ahead);
  };
  if (data.clock) mount.timer = setInterval(tick, 250);
  tick();
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

function drawClock(root, clock, now) {
  root.querySelector(".clock").hidden = !clock;
  if (!clock) return;
  const start = Date.parse(clock.start), end = Date.parse(clock.end);
  const isDown = clock.counts === "down";
  const seconds = Math.max(0, Math.round((isDown ? end - now : now - start) / 1000));
  const isWaiting = isDown && seconds > 0;
  root.querySelector(".ring").classList.toggle("turning", !isWaiting);
  const share = isWaiting ? (100 * (end - now)) / Math.max(end - start, 1) : 25;
  root.querySelector(".arc").style.strokeDasharray = `${Math.min(100, share)} 200`;
  write(root, ".time", isDown && !isWaiting ? "…" : minutes(seconds));
  const caption = (isDown ? isWaiting : now < end) ? clock.before : clock.after;
  const fill = (text) =>
    text.replace("{time}", spoken(seconds)).replace("{at}", timeOfDay.format(end));
  write(root, ".headline", fill(caption.headline));
  write(root, ".note", fill(caption.note));
}

function drawSteps(mount, list, steps) {
  const drawn = JSON.stringify(steps);
  if (mount.drawn === drawn) return;
  mount.drawn = drawn;
  list.replaceChildren(...steps.map(drawStep));
}

function drawStep(step) {
  const item = element("li", step.shape);
  if (step.shape === "now") item.setAttribute("aria-current", "step");
  const sign = element("span", "sign", SIGNS[step.shape]);
  sign.setAttribute("aria-hidden", "true");
  const text = element("div", "text");
  text.append(
    element("span", "unseen", `${SHAPE_NAMES[step.shape]}: `),
    element("strong", "", step.title),
  );
  if (step.note) text.append(element("div", "note", step.note));
  item.append(sign, text);
  if (step.at) {
    const time = element("time", "", timeOfDay.format(new Date(step.at)));
    time.dateTime = step.at;
    item.append(time);
  }
  return item;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function write(root, selector, text) {
  const target = root.querySelector(selector);
  if (target.textContent !== text) target.textContent = text;
}

const minutes = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

const spoken = (seconds) =>
  seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
