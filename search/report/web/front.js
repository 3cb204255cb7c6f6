// The front: every trial over two metrics, those of other sweeps behind it, and the card of the trial under the pointer.

const card = $("card");
let pinned = -1;

function thumbnail(index) {
  const kinds = sweep.pictures[sweep.number[index]];
  const kind = kinds && Object.keys(DATA.kinds).reverse().find((name) => name in kinds);
  if (!kind) return null;
  const { steps, width, height, source } = kinds[kind];
  const image = el("img", { src: source, alt: `${kind.replace("_", " ")} of trial ${sweep.number[index]} at step ${steps.at(-1)}` });
  const view = el("div", { class: "window" }, image);
  view.style.aspectRatio = `${width} / ${height}`;
  image.style.transform = `translateY(${(-100 * (steps.length - 1)) / steps.length}%)`;
  return view;
}

function title(index) {
  const point = word(sweep.point, index);
  const marks = [outcomeOf(index)];
  if (sweep.front[index]) marks.push("on the front");
  if (sweep.number[index] === sweep.recommended) marks.push("recommended");
  return `Trial ${sweep.number[index]}${point ? ` (${point})` : ""}: ${marks.join(", ")}`;
}

function fillCard(index) {
  const list = el("dl");
  const keys = [...new Set([...sweep.objectives, ...sweep.parameters.map((parameter) => parameter.key)])];
  for (const key of ["step", ...keys].filter((key) => column(key) && shown(key, index) !== "").slice(0, 13))
    list.append(el("dt", {}, short(key)), el("dd", {}, shown(key, index)));
  const reason = word(sweep.reason, index);
  const picture = thumbnail(index);
  card.replaceChildren(el("h4", {}, title(index)), ...(picture ? [picture] : []), list, ...(reason ? [el("p", {}, reason)] : []));
  if (sweep.confirmed[index]) card.append(el("p", {}, `fresh seeds: ${sweep.confirmed[index]}`));
  if (pinned < 0) return;
  const address = runAddress(index);
  const buttons = el("div", { class: "buttons" });
  if (address) buttons.append(el("a", { href: address, target: "_blank", rel: "noopener" }, "MLflow run"));
  const copyButton = el("button", { type: "button", class: "copy", "data-copy": address || sweep.run[index] }, address ? "copy address" : "copy run id");
  const chosen = state.chosen.includes(index);
  buttons.append(copyButton, el("button", { type: "button", onclick: () => (choose(index), fillCard(index)) }, chosen ? "drop curves" : "show curves"), el("button", { type: "button", onclick: unpin }, "close"));
  card.append(el("code", {}, sweep.run[index]), buttons);
}

function placeCard(x, y) {
  const { offsetWidth, offsetHeight } = card;
  const left = x + 16 + offsetWidth < window.innerWidth ? x + 16 : Math.max(8, x - 16 - offsetWidth);
  card.style.left = `${left}px`;
  const above = y - 12 - offsetHeight;
  card.style.top = `${above >= 8 ? above : Math.max(8, Math.min(y + 12, window.innerHeight - offsetHeight - 8))}px`;
}

function showCard(index, x, y, pin = false) {
  if (pinned >= 0 && !pin) return;
  pinned = pin ? index : -1;
  card.classList.toggle("pinned", pin);
  card.hidden = false;
  fillCard(index);
  placeCard(x, y);
}

function hideCard() {
  if (pinned < 0) card.hidden = true;
}

function unpin() {
  pinned = -1;
  if (card.contains(document.activeElement)) frontPlot.box.focus();
  hideCard();
}

/** Opens a trial's MLflow run; without a server its id is copied and shown. */
function openRun(index, x, y, go = true) {
  const address = runAddress(index);
  showCard(index, x, y, true);
  if (document.activeElement === frontPlot.box) card.querySelector("a, button").focus();
  if (address && go) window.open(address, "_blank", "noopener");
  else if (!address) copy(sweep.run[index]).then((done) => say(done ? `copied the id of the run of trial ${sweep.number[index]}` : sweep.run[index]));
}

const front = { x: null, y: null, points: [] };
const frontPlot = new Plot($("front-plot"), { height: 430, label: "Front", brushable: true, draw: drawFront, over: drawFrontOver });

function frontKeys() {
  const keys = sweep.metrics.map((metric) => metric.key);
  const [one, two] = sweep.objectives;
  for (const [select, key] of [[$("front-x"), two ? one : "trial"], [$("front-y"), two ?? one]]) {
    select.replaceChildren(...["trial", ...keys].map((name) => el("option", { value: name }, short(name))));
    select.value = keys.includes(key) || key === "trial" ? key : "trial";
  }
  const wide = [one, two].some((key) => key && spread(column(key)) > 8);
  $("front-log").checked = wide;
}

/** Largest over smallest positive value. */
function spread(found) {
  if (!found) return 1;
  let [low, high] = [Infinity, 0];
  for (const value of found.values) if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return high > 0 && !found.values.some((value) => value !== null && value <= 0) ? high / low : 1;
}

function drawFront(pen, plot) {
  [front.x, front.y] = [$("front-x").value, $("front-y").value];
  const log = $("front-log").checked;
  const others = DATA.sweeps.filter((other) => column(front.x, other) && column(front.y, other) && front.x !== "trial" && front.y !== "trial");
  const shownSweeps = others.includes(sweep) ? others : [sweep];
  const [x, y] = [front.x, front.y].map((key) => {
    const found = shownSweeps.map((other) => column(key, other)?.values ?? []);
    const trivial = sweep.trivial[key]?.value;
    return Scale.of([...found.flat(), ...(trivial && mask.count ? [trivial] : [])], log && key !== "trial" && shownSweeps.every((other) => !column(key, other)?.values.some((value) => value !== null && value <= 0)));
  });
  Object.assign(front, { scales: [x, y] });
  axes(pen, plot, x, y, { xName: short(front.x), yName: short(front.y), top: 18 });
  drawTrivial(pen, plot, x, y);
  const current = sweep;
  for (const other of shownSweeps.filter((other) => other !== current)) {
    pen.globalAlpha = 0.75;
    sweep = other;
    drawPoints(pen, x, y, ink(`s${DATA.sweeps.indexOf(other) % 8}`), true);
    sweep = current;
  }
  pen.globalAlpha = 1;
  front.points = drawPoints(pen, x, y, ink(`s${state.sweep % 8}`), false);
  if (!front.points.length) note(pen, plot, size ? "No trial has values of both yet." : "No trial has started yet.");
}

function drawTrivial(pen, plot, x, y) {
  pen.strokeStyle = pen.fillStyle = ink("muted");
  pen.setLineDash([5, 4]);
  pen.textBaseline = "bottom";
  const [across, up] = [sweep.trivial[front.x], sweep.trivial[front.y]];
  if (across) {
    const at = x.at(across.value);
    line(pen, at, y.start, at, y.end);
    pen.textAlign = at > plot.width / 2 ? "right" : "left";
    pen.fillText(across.name, at + (at > plot.width / 2 ? -4 : 4), y.end - 2);
  }
  if (up) {
    const at = y.at(up.value);
    line(pen, x.start, at, x.end, at);
    pen.textAlign = "left";
    pen.fillText(up.name, x.start + 4, at - 3);
  }
  pen.setLineDash([]);
}

/** Draws the trials of `sweep`, and returns [x, y, index] of each. */
function drawPoints(pen, x, y, color, behind) {
  const [across, up] = [column(front.x).values, column(front.y).values];
  const points = [];
  for (let index = 0; index < sweep.number.length; index++) if (across[index] !== null && up[index] !== null) points.push([x.at(across[index]), y.at(up[index]), index]);
  const visible = (index) => behind || mask[index];
  const many = points.length > 1500 ? 2.5 : 4;
  for (const part of [0, 1])
    for (const [px, py, index] of points) {
      if (Number(visible(index)) !== part) continue;
      const on = sweep.front[index];
      if (!behind) pen.globalAlpha = on ? 1 : completed(index) ? 0.85 : 0.6;
      mark(pen, px, py, index, on ? 6 : many, part && (on || completed(index)) ? color : part ? ink("muted") : ink("faint"));
    }
  pen.globalAlpha = behind ? 0.75 : 1;
  const steps = staircase(points);
  if (steps.length) {
    pen.beginPath();
    steps.forEach(([px, py], place) => (place ? (pen.lineTo(px, steps[place - 1][1]), pen.lineTo(px, py)) : pen.moveTo(px, py)));
    pen.setLineDash([3, 3]);
    pen.lineWidth = 1.5;
    pen.strokeStyle = color;
    pen.stroke();
    pen.setLineDash([]);
  }
  return points;
}

/** What a dotted line joins: the front of two objectives, or the best so far of one. */
function staircase(points) {
  const { objectives } = sweep;
  if (objectives.length === 2 && objectives.includes(front.x) && objectives.includes(front.y)) return points.filter(([, , index]) => sweep.front[index]).sort((one, two) => one[0] - two[0]);
  if (front.x !== "trial" || !objectives.includes(front.y)) return [];
  const ended = points.filter(([, , index]) => completed(index)).sort((one, two) => one[0] - two[0]);
  let best = -Infinity; // pixels: the lowest value is the furthest down
  return ended.filter(([, y]) => y > best && ((best = y), true));
}

function note(pen, plot, text) {
  pen.fillStyle = ink("muted");
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = "14px system-ui, sans-serif";
  pen.fillText(clipped(pen, text, plot.width - 20), plot.width / 2, plot.height / 2);
}

function drawFrontOver(pen) {
  const dragged = front.drag ?? (state.box && state.box.x === front.x && state.box.y === front.y ? front.scales.flatMap((scale, place) => state.box.ranges[place].map((value) => scale.at(value))) : null);
  if (dragged) {
    const [x0, x1, y0, y1] = dragged;
    pen.strokeStyle = ink("accent");
    pen.fillStyle = ink("accent");
    pen.globalAlpha = 0.12;
    pen.fillRect(x0, y0, x1 - x0, y1 - y0);
    pen.globalAlpha = 1;
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  for (const [x, y, index] of front.points) {
    const place = state.chosen.indexOf(index);
    if (place >= 0) ring(pen, x, y, curveColor(place));
    if (index === state.hover) ring(pen, x, y, ink("ink"), 9);
  }
}

function nearest([x, y], points = front.points, reach = 14) {
  let best = -1;
  let closest = reach * reach;
  for (const [px, py, index] of points) {
    const away = (px - x) ** 2 + (py - y) ** 2 + (mask[index] ? 0 : 40);
    if (away < closest) [best, closest] = [index, away];
  }
  return best;
}

function watchFront() {
  const over = frontPlot.canvases[1];
  let start = null;
  over.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button) return;
    start = frontPlot.where(event);
    if (event.pointerType === "mouse") over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    const [x, y] = frontPlot.where(event);
    if (start && event.pointerType === "mouse" && Math.hypot(x - start[0], y - start[1]) > 5) {
      front.drag = [Math.min(start[0], x), Math.max(start[0], x), Math.max(start[1], y), Math.min(start[1], y)];
      hideCard();
      frontPlot.paintOver();
      return;
    }
    if (front.drag) return;
    const index = nearest([x, y]);
    over.style.cursor = index >= 0 ? "pointer" : "";
    if (index >= 0) showCard(index, event.clientX, event.clientY);
    else hideCard();
    hover(index);
  });
  over.addEventListener("pointerleave", () => (hideCard(), hover(-1)));
  over.addEventListener("pointercancel", () => (start = front.drag = null));
  over.addEventListener("pointerup", (event) => {
    if (!start) return;
    start = null;
    if (front.drag) {
      const [x0, x1, y0, y1] = front.drag;
      const [x, y] = front.scales;
      state.box = { x: front.x, y: front.y, ranges: [[x.back(x0), x.back(x1)], [y.back(y0), y.back(y1)]] };
      front.drag = null;
      changed("filter");
      return;
    }
    const index = nearest(frontPlot.where(event), front.points, event.pointerType === "mouse" ? 14 : 26);
    if (index >= 0) openRun(index, event.clientX, event.clientY, event.pointerType === "mouse");
    else if (state.box) (state.box = null), changed("filter");
    else unpin();
  });
  frontPlot.box.addEventListener("keydown", frontKey);
  for (const id of ["front-x", "front-y", "front-log"]) $(id).addEventListener("change", () => frontPlot.paint());
}

function frontKey(event) {
  const points = front.points.filter(([, , index]) => mask[index]);
  const at = points.findIndex(([, , index]) => index === state.hover);
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const box = frontPlot.box.getBoundingClientRect();
  const screen = ([x, y]) => [box.left + x, box.top + y];
  if (event.key in moves && points.length) {
    const next = points[(at + moves[event.key] + points.length) % points.length];
    hover(next[2]);
    unpin();
    showCard(next[2], ...screen(next));
    say(`${title(next[2])}; ${short(front.x)} ${shown(front.x, next[2])}, ${short(front.y)} ${shown(front.y, next[2])}`);
  } else if (event.key === "Enter" && at >= 0) openRun(state.hover, ...screen(points[at]));
  else if (event.key === " " && at >= 0) choose(state.hover);
  else if (event.key === "Escape") (state.box = null), unpin(), hover(-1), changed("filter");
  else return;
  event.preventDefault();
}

function frontLegend() {
  const shape = (content) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 26 12");
    svg.setAttribute("aria-hidden", "true");
    for (const [name, attributes] of content) {
      const part = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
      svg.append(part);
    }
    return svg;
  };
  const color = ink(`s${state.sweep % 8}`);
  const muted = ink("muted");
  const entries = [
    [[["path", { d: "M1 6H25", stroke: color, "stroke-dasharray": "3 3" }], ["circle", { cx: 13, cy: 6, r: 5, fill: color }]], "on the front"],
    [[["circle", { cx: 13, cy: 6, r: 3.5, fill: color }]], "beaten, full fidelity"],
    [[["circle", { cx: 13, cy: 6, r: 3.5, fill: "none", stroke: muted }]], "ended earlier, at its last evaluation"],
    [[["path", { d: "M9 2L17 10M9 10L17 2", stroke: muted, "stroke-width": 1.6 }]], "diverged or failed"],
    [[["path", { d: "M1 6H25", stroke: muted, "stroke-dasharray": "5 4" }]], "trivial model"],
  ];
  const sweeps = DATA.sweeps.length > 1 ? DATA.sweeps.map((other, place) => el("span", {}, el("i", { class: `dot s${place % 8}` }), other.name)) : [];
  $("front-legend").replaceChildren(...sweeps, ...entries.map(([content, text]) => el("span", {}, shape(content), text)));
}

watchFront();
views.push((what) => {
  if (what === "sweep") frontKeys(), unpin();
  if (what === "sweep" || what === "theme") frontLegend();
  if (what === "hover" || what === "chosen") frontPlot.paintOver();
  else frontPlot.paint();
  if (what === "filter" || what === "sweep")
    frontPlot.box.setAttribute("aria-label", `Front of ${sweep.name}: ${mask.count} of ${size} trials, ${sweep.front.filter(Boolean).length} on the front. Arrow keys go through the trials.`);
});
