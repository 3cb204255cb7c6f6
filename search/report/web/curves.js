// Curves of the chosen trials, a plot per metric, with a line at each rung.

const DASHES = [[], [6, 3], [2, 2], [8, 2, 2, 2]];
let curvePlots = [];

function drawCurves() {
  for (const plot of curvePlots) plot.remove();
  $("curve-plots").replaceChildren();
  const { keys, trials } = sweep.curves;
  const known = state.chosen.filter((index) => sweep.number[index] in trials);
  curvePlots = keys.filter((key) => known.some((index) => trials[sweep.number[index]][key])).map(curvePlot);
  chips();
  const without = state.chosen.filter((index) => !known.includes(index));
  const validationOnly = known.filter((index) => !sweep.curves.chosen.includes(sweep.number[index]));
  const said = [];
  if (sweep.rungs.length) said.push(`Vertical lines: the rungs at steps ${sweep.rungs.join(", ")}, where a trial may be stopped early. `);
  if (without.length) said.push("In MLflow alone: all curves of ", ...runLinks(without), ". ");
  if (validationOnly.length) said.push("In MLflow alone: the training curves of ", ...runLinks(validationOnly), ". ");
  if (!known.length) said.push(size ? "Tick trials in the table, or choose them in the front, to see their curves." : "No trial has started yet.");
  $("curve-note").replaceChildren(...said);
}

/** "trial 1, trial 2", linked where there is a server. */
function runLinks(indices) {
  return indices.flatMap((index, place) => {
    const [name, address] = [`trial ${sweep.number[index]}`, runAddress(index)];
    return [place ? ", " : "", address ? el("a", { href: address, target: "_blank", rel: "noopener" }, name) : name];
  });
}

function curvePlot(key) {
  const figure = el("figure", {}, el("figcaption", { title: column(key)?.meaning ?? "" }, short(key)));
  $("curve-plots").append(figure);
  const kept = { lines: [] };
  const plot = new Plot(figure, {
    height: 220,
    label: `${short(key)} over steps of trials ${state.chosen.map((index) => sweep.number[index]).join(", ")}`,
    interactive: false,
    draw: (pen, plot) => paintCurves(pen, plot, key, kept),
    over: (pen) => kept.lines.filter(({ index }) => index === state.hover).forEach((each) => stroke(pen, each, 3.5)),
  });
  plot.canvases[1].addEventListener("pointermove", (event) => {
    const where = plot.where(event);
    const points = kept.lines.flatMap(({ index, points }) => points.map(([x, y]) => [x, y, index]));
    hover(nearest(where, points, 30));
    if (state.hover >= 0) showCard(state.hover, event.clientX, event.clientY);
    else hideCard();
  });
  plot.canvases[1].addEventListener("pointerleave", () => (hideCard(), hover(-1)));
  return plot;
}

function paintCurves(pen, plot, key, kept) {
  const found = state.chosen.map((index, place) => ({ index, place, curve: sweep.curves.trials[sweep.number[index]]?.[key] })).filter(({ curve }) => curve);
  const values = found.flatMap(({ curve }) => curve[1]);
  const log = values.every((value) => value === null || value > 0) && spread({ values }) > 5;
  const x = Scale.of([0, ...sweep.rungs, ...found.flatMap(({ curve }) => curve[0])], false);
  x.low = 0;
  const y = Scale.of(values, log);
  axes(pen, plot, x, y, { left: 54, bottom: 36, xName: "step" });
  pen.strokeStyle = ink("muted");
  pen.setLineDash([2, 4]);
  for (const rung of sweep.rungs) line(pen, x.at(rung), y.start, x.at(rung), y.end);
  pen.setLineDash([]);
  kept.lines = found.map(({ index, place, curve: [steps, heights] }) => ({
    index,
    place,
    points: steps.map((step, at) => [x.at(step), heights[at] === null ? null : y.at(heights[at])]).filter(([, height]) => height !== null),
  }));
  for (const each of kept.lines) stroke(pen, each, completed(each.index) ? 2 : 1.4);
}

function stroke(pen, { points, place }, width) {
  pen.strokeStyle = pen.fillStyle = curveColor(place);
  pen.lineWidth = width;
  pen.setLineDash(DASHES[Math.floor(place / 8) % DASHES.length]);
  pen.beginPath();
  points.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
  pen.setLineDash([]);
  if (points.length > 15) return;
  for (const [x, y] of points) {
    pen.beginPath();
    pen.arc(x, y, width + 0.6, 0, 2 * Math.PI);
    pen.fill();
  }
}

function chips() {
  $("chosen").replaceChildren(
    ...state.chosen.map((index, place) => {
      const button = el("button", { type: "button", "aria-label": `drop trial ${sweep.number[index]}`, onclick: () => choose(index) }, el("i", { class: `dot s${place % 8}` }), `trial ${sweep.number[index]}${completed(index) ? "" : `, ${outcomeOf(index)}`} ×`);
      button.addEventListener("pointerenter", () => hover(index));
      button.addEventListener("pointerleave", () => hover(-1));
      return button;
    }),
  );
}

views.push((what) => {
  if (what === "sweep" || what === "chosen") drawCurves();
  else if (what === "theme") for (const plot of curvePlots) plot.paint();
  else if (what === "hover") for (const plot of curvePlots) plot.paintOver();
});
