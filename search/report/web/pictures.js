// The contact sheet: a picture per trial at the step of the slider, on the same test frames and the same z.

const SHEET = 24;
const sheet = { steps: [], entries: [], most: SHEET };

/** Indices of the trials that have pictures of the kind, in the order that is asked for. */
function pictured() {
  const kind = $("picture-kind").value;
  const [wanted, by] = [$("picture-outcome").value, $("picture-sort").value];
  const found = [];
  for (let index = 0; index < size; index++) {
    if (!mask[index] || (wanted === "front" ? !sweep.front[index] : wanted && outcomeOf(index) !== wanted)) continue;
    if (sweep.pictures[sweep.number[index]]?.[kind]) found.push(index);
  }
  if (by === "rank") return found;
  const { values, better } = column(by);
  const sign = better === "more" ? -1 : 1;
  return found.sort((one, two) => (values[one] === null) - (values[two] === null) || sign * (values[one] - values[two]));
}

function drawSheet() {
  const kind = $("picture-kind").value;
  const order = pictured();
  const by = $("picture-sort").value;
  sheet.entries = order.slice(0, sheet.most).map((index) => {
    const sprite = sweep.pictures[sweep.number[index]][kind];
    const image = el("img", { src: sprite.source, alt: "" });
    const view = el("div", { class: "window" }, image);
    const value = by === "rank" ? sweep.objectives[0] : by;
    const label = `trial ${sweep.number[index]}${sweep.front[index] ? " ●" : ""}${completed(index) ? "" : `, ${outcomeOf(index)}`}`;
    const name = el("button", { type: "button", class: "link", onclick: (event) => showCard(index, event.clientX, event.clientY, true) }, label);
    const at = el("span", { class: "muted" });
    const figure = el("figure", {}, el("figcaption", {}, name, at, el("span", { class: "muted" }, column(value) ? `${short(value)} ${shown(value, index)}` : "")), view);
    figure.addEventListener("pointerenter", () => hover(index));
    figure.addEventListener("pointerleave", () => hover(-1));
    return { index, sprite, image, view, at, figure };
  });
  $("sheet").replaceChildren(...sheet.entries.map((entry) => entry.figure));
  $("picture-more").hidden = order.length <= sheet.most;
  const all = Object.keys(sweep.pictures).length;
  const rest = size > all ? ` The page has pictures of ${all} of ${size.toLocaleString("en")} trials: the front, then evenly spaced ranks of the others, whose pictures are in their MLflow runs.` : "";
  $("picture-note").textContent = all ? `${DATA.kinds[kind]}. Every trial has the same test frames and the same z. ${order.length} trials${mask.filtered ? " of those that pass the filters" : ""}.${rest}` : "No trial has pictures yet: they are made at the 1st, 2nd, 4th, 8th… evaluation.";
  moveSheet();
}

/** Shows every picture at the slider's step, or at the trial's last one before it. */
function moveSheet() {
  const step = sheet.steps[Number($("picture-step").value)] ?? 0;
  const all = $("picture-all").checked;
  const kind = $("picture-kind").value.replace("_", " ");
  $("picture-at").textContent = all ? "all" : sheet.steps.length ? step.toLocaleString("en") : "";
  $("picture-step").setAttribute("aria-valuetext", `step ${step}`);
  for (const { index, sprite, image, view, at } of sheet.entries) {
    const { steps, width, height } = sprite;
    let place = steps.findLastIndex((each) => each <= step);
    if (place < 0) place = 0;
    view.style.aspectRatio = all ? "auto" : `${width} / ${height}`;
    image.style.transform = all ? "none" : `translateY(${(-100 * place) / steps.length}%)`;
    at.textContent = all ? `steps ${steps.join(", ")}` : steps[place] === step ? "" : `step ${steps[place]}`;
    image.alt = `${kind} of trial ${sweep.number[index]} at ${all ? `steps ${steps.join(", ")}` : `step ${steps[place]}`}`;
  }
}

/** The slider goes over the steps that any trial has a picture of. */
function sheetSteps() {
  const kind = $("picture-kind").value;
  const found = new Set(Object.values(sweep.pictures).flatMap((kinds) => kinds[kind]?.steps ?? []));
  sheet.steps = [...found].sort((one, two) => one - two);
  const slider = $("picture-step");
  slider.max = Math.max(0, sheet.steps.length - 1);
  slider.value = slider.max;
  slider.disabled = sheet.steps.length < 2;
}

function sheetControls() {
  const kinds = Object.keys(DATA.kinds).filter((kind) => Object.values(sweep.pictures).some((of) => kind in of));
  $("picture-kind").replaceChildren(...kinds.map((kind) => el("option", { value: kind }, kind.replace("_", " "))));
  $("picture-sort").replaceChildren(el("option", { value: "rank" }, "rank"), ...sweep.metrics.map(({ key }) => el("option", { value: key }, short(key))));
  $("picture-outcome").replaceChildren(el("option", { value: "" }, "all"), el("option", { value: "front" }, "on the front"), ...sweep.outcome.words.map((name) => el("option", { value: name }, name)));
  for (const node of $("picture-controls").querySelectorAll("select, input")) node.disabled = !kinds.length;
  sheet.most = SHEET;
}

$("picture-step").addEventListener("input", moveSheet);
$("picture-all").addEventListener("change", moveSheet);
$("picture-kind").addEventListener("change", () => (sheetSteps(), drawSheet()));
for (const id of ["picture-sort", "picture-outcome"]) $(id).addEventListener("change", drawSheet);
$("picture-more").addEventListener("click", () => ((sheet.most += SHEET), drawSheet()));
views.push((what) => {
  if (what === "sweep") sheetControls(), sheetSteps();
  if (what === "sweep" || what === "filter") drawSheet();
});
