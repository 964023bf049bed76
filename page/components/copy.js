// A button that copies a text, and then shows that it did.

export default function ({ parentElement, data }) {
  const button = parentElement.querySelector("button");
  const spoken = parentElement.querySelector("[role=status]");
  if (button.dataset.label !== data.label) button.dataset.label = button.textContent = data.label;
  button.onclick = async () => {
    button.textContent = spoken.textContent = (await copy(data.text)) ? "Copied" : "Not possible here";
    setTimeout(() => {
      button.textContent = data.label;
      spoken.textContent = "";
    }, 2000);
  };
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // only with https, or on this machine
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.cssText = "position:fixed;opacity:0";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}
