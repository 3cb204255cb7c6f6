// The switches of the whole page: sweep, theme, copy buttons.

const themes = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

/** A frame without an origin of its own, as MLflow's page of an artifact is, has no storage. */
function remembered(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

const before = remembered("vaegan-theme");
if (before === "light" || before === "dark") root.dataset.theme = before;
$("theme").addEventListener("click", () => {
  const now = root.dataset.theme ?? (themes.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  remembered("vaegan-theme", root.dataset.theme);
  changed("theme");
});
themes.addEventListener("change", () => changed("theme"));

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button.copy");
  if (button) {
    const label = button.textContent;
    const done = await copy(button.dataset.copy);
    button.textContent = done ? "copied" : "not possible here";
    say(done ? "copied" : button.dataset.copy);
    setTimeout(() => (button.textContent = label), 1500);
  }
  if (!event.target.closest?.("#columns")) $("columns").open = false;
  if (event.target.isConnected && !event.target.closest?.("#card, .plot, #sheet, #table-box")) unpin();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") unpin();
});

for (const button of document.querySelectorAll("#switch button"))
  button.addEventListener("click", () => {
    const place = Number(button.dataset.sweep);
    for (const other of document.querySelectorAll("#switch button")) other.setAttribute("aria-pressed", String(other === button));
    for (const part of document.querySelectorAll(".of-sweep")) part.hidden = Number(part.dataset.of) !== place;
    show(place);
  });

const OF_TRIALS = ["checks", "front", "trials", "matters", "pictures", "curves", "ends"];

/** Opens a sweep; one whose trials all answer questions has nothing in the sections about the others. */
function show(place) {
  const reveal = (on) => OF_TRIALS.forEach((id) => ($(id).hidden = document.querySelector(`nav a[href="#${id}"]`).hidden = !on));
  reveal(true); // what is hidden has no size to draw in
  openSweep(place);
  reveal(!sweep.asks_only);
}

show(0);
