// One plot per parameter: its values against an objective. Trials without the parameter are in other branches.

let isolation = [];

function drawIsolation() {
  for (const { plot } of isolation) plot.remove();
  $("isolation").replaceChildren();
  const key = $("matters-y").value;
  isolation = sweep.parameters.filter((parameter) => parameter.values.some((value) => value !== null)).map((parameter) => isolated(parameter, key));
  if (!isolation.length) $("isolation").append(el("p", { class: "muted" }, size ? "No parameter is searched." : "No trial has started yet."));
}

function isolated(parameter, key) {
  const there = parameter.values.filter((value) => value !== null).length;
  const figure = el("figure", {}, el("figcaption", {}, parameter.key, el("span", {}, parameter.only ? `where ${parameter.only}: ${there} trial${there === 1 ? "" : "s"}` : "")));
  $("isolation").append(figure);
  const kept = { points: [], plot: null };
  kept.plot = new Plot(figure, {
    height: 190,
    label: `${parameter.key} against ${short(key)}, ${there} trials`,
    interactive: false,
    draw: (pen, plot) => (kept.points = drawIsolated(pen, plot, parameter, key)),
    over: (pen) => kept.points.forEach(([x, y, index]) => index === state.hover && ring(pen, x, y, ink("ink"))),
  });
  const over = kept.plot.canvases[1];
  over.addEventListener("pointermove", (event) => {
    const index = nearest(kept.plot.where(event), kept.points);
    if (index >= 0) showCard(index, event.clientX, event.clientY);
    else hideCard();
    hover(index);
  });
  over.addEventListener("pointerleave", () => (hideCard(), hover(-1)));
  over.addEventListener("click", (event) => {
    const index = nearest(kept.plot.where(event), kept.points, 20);
    if (index >= 0) showCard(index, event.clientX, event.clientY, true);
    else unpin();
  });
  return kept;
}

function drawIsolated(pen, plot, parameter, key) {
  const objective = column(key);
  const values = objective?.values ?? [];
  const log = spread(objective) > 8;
  const x = parameter.choices ? new Scale(0, 0, { choices: parameter.choices }) : Scale.of([parameter.low, parameter.high, ...parameter.values], parameter.log);
  const y = Scale.of(values, log);
  const anyFailed = parameter.values.some((value, index) => value !== null && failed(index));
  axes(pen, plot, x, y, { left: 50, top: anyFailed ? 26 : 8, bottom: 24, right: 8 });
  const room = parameter.choices ? (plot.width - 58) / parameter.choices.length : 0;
  const radius = size > 1000 ? 1.8 : 3;
  const points = [];
  for (let index = 0; index < size; index++) {
    const value = parameter.values[index];
    if (value === null || (parameter.log && value <= 0)) continue;
    const jitter = room ? (((sweep.number[index] * 13) % 17) / 17 - 0.5) * Math.min(room * 0.5, 60) : 0;
    if (failed(index)) points.push([x.at(value) + jitter, 12, index]);
    else if (values[index] !== null && values[index] !== undefined) points.push([x.at(value) + jitter, y.at(values[index]), index]);
  }
  for (const part of [0, 1])
    for (const [px, py, index] of points) {
      if (mask[index] !== part) continue;
      pen.globalAlpha = failed(index) || !part ? 0.8 : size > 1000 ? 0.55 : 0.85;
      mark(pen, px, py, index, failed(index) ? radius + 1 : radius, !part ? ink("faint") : failed(index) ? ink("warn") : ink(`s${state.sweep % 8}`));
    }
  pen.globalAlpha = 1;
  return points;
}

$("matters-y").addEventListener("change", drawIsolation);
views.push((what) => {
  if (what === "sweep") {
    $("matters-y").replaceChildren(...[...new Set([...sweep.objectives, ...sweep.metrics.map((metric) => metric.key)])].map((key) => el("option", { value: key }, short(key))));
    drawIsolation();
  } else if (what === "hover") for (const { plot } of isolation) plot.paintOver();
  else if (what !== "chosen") for (const { plot } of isolation) plot.paint();
});
