// Parallel coordinates: one line per trial, over the searched parameters and the objectives.

const LINES = 2500; // of trials that are filtered out: the most that are drawn
const parallel = { axes: [], drag: null };
const parallelPlot = new Plot($("parallel-plot"), {
  height: 326,
  label: "Parallel coordinates",
  width: () => 70 + 72 * parallel.axes.length,
  brushable: true,
  interactive: false,
  draw: drawParallel,
  over: drawParallelOver,
});

function parallelAxes() {
  const keys = [...sweep.parameters.map((parameter) => parameter.key), ...sweep.objectives].filter((key) => column(key));
  parallel.axes = keys.map((key) => {
    const { values, choices, log, low, high, isMetric } = column(key);
    const scale = choices ? new Scale(0, 0, { choices }) : isMetric ? Scale.of(values, spread(column(key)) > 8) : new Scale(low, high, { log });
    return { key, values, scale: scale.range(308, 54) };
  });
  const objective = column(sweep.objectives[0]);
  $("parallel-color").textContent = short(sweep.objectives[0] ?? "");
  const known = (objective?.values ?? []).filter((value) => value !== null).sort((one, two) => one - two);
  const places = new Map(known.map((value, place) => [value, place / Math.max(1, known.length - 1)]));
  parallel.shade = (index) => places.get(objective?.values[index] ?? null) ?? null;
}

function pathOf(pen, index) {
  let down = false;
  for (const { values, scale, x } of parallel.axes) {
    const value = values[index];
    if (value === null || (scale.log && value <= 0)) {
      down = false;
      continue;
    }
    const y = scale.at(value) + (scale.choices ? ((sweep.number[index] * 7) % 11) - 5 : 0);
    if (down) pen.lineTo(x, y);
    else {
      pen.moveTo(x - 5, y); // so that a value shows whose neighbors are of other branches
      pen.lineTo(x, y);
    }
    down = true;
  }
}

function drawParallel(pen, plot) {
  const { axes } = parallel;
  const gap = (plot.width - 110) / Math.max(1, axes.length - 1);
  axes.forEach((axis, place) => (axis.x = 50 + place * gap));
  pen.lineWidth = 1;
  const hidden = Math.max(1, Math.ceil((size - mask.count) / LINES));
  pen.strokeStyle = ink("faint");
  pen.globalAlpha = 0.5;
  pen.beginPath();
  let seen = 0;
  for (let index = 0; index < size; index++) if (!mask[index] && seen++ % hidden === 0) pathOf(pen, index);
  pen.stroke();
  pen.globalAlpha = mask.count > 1000 ? 0.25 : mask.count > 200 ? 0.5 : 0.85;
  pen.lineWidth = mask.count < 60 ? 1.8 : 1.1;
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const bins = Array.from({ length: 13 }, () => []);
  for (let index = size - 1; index >= 0; index--) if (mask[index]) bins[parallel.shade(index) === null ? 12 : Math.min(11, Math.floor(parallel.shade(index) * 12))].push(index);
  for (const bin of [12, ...Array.from({ length: 12 }, (_, place) => 11 - place)]) {
    pen.strokeStyle = bin === 12 ? ink("faint") : cividis(dark ? 1 - (bin / 11) * 0.75 : (bin / 11) * 0.8);
    pen.beginPath();
    for (const index of bins[bin]) pathOf(pen, index);
    pen.stroke();
  }
  pen.globalAlpha = 1;
  drawParallelAxes(pen, gap);
  if (!size) note(pen, plot, "No trial has started yet.");
}

function drawParallelAxes(pen, gap) {
  for (const { key, scale, x } of parallel.axes) {
    pen.strokeStyle = pen.fillStyle = ink("muted");
    pen.lineWidth = 1;
    line(pen, x, scale.start + 6, x, scale.end - 6);
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    for (const value of scale.ticks(4)) {
      const y = scale.at(value);
      line(pen, x - 3, y, x + 3, y);
      const text = clipped(pen, String(scale.label(value)), gap - 12);
      pen.globalAlpha = 0.75;
      pen.fillStyle = ink("paper");
      pen.fillRect(x + 4, y - 7, pen.measureText(text).width + 3, 14);
      pen.globalAlpha = 1;
      pen.fillStyle = ink("muted");
      pen.fillText(text, x + 6, y);
    }
    pen.fillStyle = state.ranges.has(key) ? ink("accent") : ink("ink");
    pen.textAlign = "center";
    const parts = short(key).split(".");
    const [above, below] = [parts.slice(-2, -1)[0] ?? "", parts.at(-1)];
    pen.fillText(clipped(pen, above, gap - 6), x, 14);
    pen.fillText(clipped(pen, below, gap - 6), x, 29);
  }
}

function drawParallelOver(pen) {
  for (const { key, scale, x } of parallel.axes) {
    const range = parallel.drag?.key === key ? parallel.drag.range : state.ranges.get(key)?.map((value) => scale.at(value));
    if (!range) continue;
    const [one, two] = [Math.min(...range), Math.max(...range)];
    pen.fillStyle = pen.strokeStyle = ink("accent");
    pen.globalAlpha = 0.25;
    pen.fillRect(x - 9, one, 18, two - one);
    pen.globalAlpha = 1;
    pen.strokeRect(x - 9, one, 18, two - one);
  }
  if (state.hover < 0) return;
  pen.strokeStyle = ink("ink");
  pen.lineWidth = 3;
  pen.beginPath();
  pathOf(pen, state.hover);
  pen.stroke();
}

function watchParallel() {
  const over = parallelPlot.canvases[1];
  over.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button) return;
    const [x, y] = parallelPlot.where(event);
    const axis = parallel.axes.find((each) => Math.abs(each.x - x) < 24);
    if (!axis || y < 40) return;
    parallel.drag = { key: axis.key, axis, range: [y, y] };
    if (event.pointerType === "mouse") over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    if (!parallel.drag) return;
    parallel.drag.range[1] = parallelPlot.where(event)[1];
    parallelPlot.paintOver();
  });
  over.addEventListener("pointercancel", () => ((parallel.drag = null), parallelPlot.paintOver()));
  over.addEventListener("pointerup", () => {
    if (!parallel.drag) return;
    const { key, axis, range } = parallel.drag;
    parallel.drag = null;
    if (Math.abs(range[1] - range[0]) < 5) state.ranges.delete(key);
    else state.ranges.set(key, range.map((pixel) => axis.scale.back(pixel)).sort((one, two) => one - two));
    changed("filter");
  });
}

watchParallel();
views.push((what) => {
  if (what === "sweep") parallelAxes(), parallelPlot.resize();
  if (what === "hover") parallelPlot.paintOver();
  else if (what !== "chosen") parallelPlot.paint();
  if (what === "filter" || what === "sweep") parallelPlot.box.setAttribute("aria-label", `Parallel coordinates of ${mask.count} of ${size} trials; the filter below the figure selects the same, for example lr<0.001`);
});
