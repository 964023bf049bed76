// Where one is after a change of the page: at its top; at its heading when a result has come.

const IN_USE = "[data-testid=stPopoverBody], [role=dialog]";
let seen; // which view this tab shows
const arrived = new Set(); // views whose result was pointed out already

export default function ({ data }) {
  const main = document.querySelector("[data-testid=stMain]");
  if (seen !== undefined && seen !== data.view) main.scrollTo({ top: 0, behavior: "instant" });
  seen = data.view;
  if (!data.hasArrived || arrived.has(data.view)) return;
  arrived.add(data.view);
  if (isIdle(main)) goToHeading(main);
}

// Whether nothing else is being used.
function isIdle(main) {
  return [document.body, main, null].includes(document.activeElement) && !document.querySelector(IN_USE);
}

// A screen reader goes on from here.
function goToHeading(main) {
  const heading = main.querySelector("h1");
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  const { top, bottom } = heading.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) main.scrollTo({ top: 0, behavior: "instant" });
}
