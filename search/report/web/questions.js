// The questions: a forest of all effects, then one question at a time, block by block.

const WIDEST = 6; // multiples of the smallest effect that the forest goes to at most
let forest = null;
let questionPlots = [];

const question = () => sweep.questions[Number($("question").value)];

/** An effect in multiples of the question's smallest effect that matters, so that all fit one axis. */
const multiple = ({ ratio, smallest }, value) => (value === null ? null : ratio ? Math.log(value) / Math.log(smallest) : value / smallest);

function drawForest() {
  forest?.remove();
  const rows = sweep.questions.flatMap((asked) => asked.effects.map((effect) => ({ asked, effect })));
  const height = rows.length * 58 + 46;
  forest = rows.length
    ? new Plot($("forest"), { height, label: `Effects of ${sweep.questions.map(({ name }) => name).join(", ")}`, interactive: false, draw: (pen, plot) => paintForest(pen, plot, rows) })
    : null;
}

function paintForest(pen, plot, rows) {
  const ends = rows.flatMap(({ asked, effect }) => [effect.average, effect.typical, effect.tuned].flatMap((found) => (found ?? []).map((value) => multiple(asked, value))));
  const far = Math.min(WIDEST, Math.max(2, ...ends.map((value) => Math.abs(value ?? WIDEST)))) * 1.05;
  const x = new Scale(-far, far).range(12, plot.width - 12);
  const bottom = plot.height - 40;
  pen.fillStyle = ink("panel");
  pen.fillRect(x.at(-1), 4, x.at(1) - x.at(-1), bottom - 4);
  pen.strokeStyle = ink("muted");
  pen.lineWidth = 1;
  line(pen, x.at(0), 4, x.at(0), bottom);
  pen.setLineDash([3, 3]);
  for (const at of [-1, 1]) line(pen, x.at(at), 4, x.at(at), bottom);
  pen.setLineDash([]);
  pen.textBaseline = "top";
  pen.textAlign = "center";
  pen.fillStyle = ink("muted");
  for (const value of x.ticks(Math.max(2, Math.floor(plot.width / 110)))) pen.fillText(tick(value), x.at(value), bottom + 5);
  pen.fillText(clipped(pen, "effect in multiples of the smallest that matters", plot.width - 20), plot.width / 2, bottom + 22);
  rows.forEach(({ asked, effect }, row) => paintEffects(pen, plot, x, { asked, effect }, row * 58 + 6));
}

function paintEffects(pen, plot, x, { asked, effect }, top) {
  pen.textAlign = "left";
  pen.textBaseline = "top";
  pen.font = "600 12px system-ui, sans-serif";
  pen.fillStyle = ink("ink");
  const name = clipped(pen, `${asked.name}: ${asked.levels[effect.level]}`, plot.width * 0.6);
  const written = (text, at) => {
    pen.strokeStyle = ink("paper");
    pen.lineWidth = 4;
    pen.strokeText(text, at, top); // so that lines behind it do not cross it
    pen.fillText(text, at, top);
  };
  written(name, 12);
  const taken = 22 + pen.measureText(name).width;
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = ink("muted");
  written(clipped(pen, effect.average ? effect.words : "no look yet", plot.width - taken - 12), taken);
  const color = ink({ difference: "warn", "diverges more often": "warn", "no practical effect": "good" }[effect.verdict] ?? "muted");
  [["average", 0], ["typical", 1], ["tuned", 2]].forEach(([kind, place]) => paintEffect(pen, x, asked, effect[kind], { kind, color, y: top + 22 + place * 11 }));
}

function paintEffect(pen, x, asked, found, { kind, color, y }) {
  if (!found) return;
  const inside = (value) => Math.min(x.high, Math.max(x.low, value));
  const [middle, low, high] = found.map((value) => multiple(asked, value));
  pen.strokeStyle = pen.fillStyle = color;
  pen.lineWidth = kind === "average" ? 3 : 1.4;
  const bounded = found[2] !== null || found[1]; // or there are too few blocks for an interval
  const [from, to] = bounded ? [low ?? -Infinity, high ?? Infinity] : [middle, middle];
  if (bounded) line(pen, x.at(inside(from)), y, x.at(inside(to)), y);
  if (from < x.low) onward(pen, x.start, y, -1);
  if (to > x.high) onward(pen, x.end, y, 1);
  if (Math.abs(middle) > x.high) return;
  const at = x.at(middle);
  pen.beginPath();
  if (kind === "tuned") [[0, -5], [5, 0], [0, 5], [-5, 0]].forEach(([dx, dy], place) => (place ? pen.lineTo(at + dx, y + dy) : pen.moveTo(at + dx, y + dy)));
  else pen.arc(at, y, kind === "average" ? 5 : 4, 0, 2 * Math.PI);
  pen.closePath();
  if (kind === "typical") pen.fillStyle = ink("paper");
  pen.fill();
  pen.lineWidth = 1.4;
  pen.stroke();
}

/** An arrow from the edge outward: what is drawn there goes on beyond it. */
function onward(pen, edge, y, side) {
  line(pen, edge, y, edge + side * 10, y);
  for (const up of [-4, 4]) line(pen, edge + side * 6, y + up, edge + side * 10, y);
}

/** The figures of the chosen question. */
function drawQuestion() {
  for (const plot of questionPlots) plot.remove();
  questionPlots = [];
  $("question-figures").replaceChildren();
  $("question-sheet").replaceChildren();
  if (!sweep.questions.length) return;
  const asked = question();
  $("question-levels").replaceChildren(...asked.levels.map((level, place) => el("span", {}, el("i", { class: `dot s${place}` }), level)));
  const nuisance = asked.nuisances.find(({ key }) => key === $("question-nuisance").value);
  $("question-note").textContent = asked.blocks.length ? moderated(asked) : "No block has ended yet.";
  if (!asked.blocks.length) return;
  addPlot(`${asked.outcome} by level, a line per block${nuisance ? `, colored by ${nuisance.key}${nuisance.choices ? "" : ": dark is low"}` : ""}`, (pen, plot) => paintSlopes(pen, plot, asked, nuisance));
  if (nuisance) addPlot(`effect per block over ${nuisance.key}`, (pen, plot) => paintModerated(pen, plot, asked, nuisance));
  if (asked.best.length) addPlot("expected best of n draws by level", (pen, plot) => paintBest(pen, plot, asked));
  if (asked.curves.levels.some(({ steps }) => steps.length)) addPlot(`${short(asked.curves.metric)} over steps by level: median and middle half`, (pen, plot) => paintSpread(pen, plot, asked));
  drawQuestionSheet(asked);
}

/** Whether the effect goes with a nuisance, in words. */
function moderated({ strongest }) {
  if (!strongest) return "";
  const p = strongest.p < 0.001 ? "p < 0.001" : `p = ${Number(strongest.p.toPrecision(2))}`;
  const told = `${strongest.key}, ${p} over all nuisances`;
  return strongest.p <= 0.05 ? `The effect goes with ${told}; association only.` : `The effect goes with no nuisance that can be told (closest: ${told}).`;
}

function addPlot(title, draw) {
  const figure = el("figure", {}, el("figcaption", {}, title));
  $("question-figures").append(figure);
  questionPlots.push(new Plot(figure, { height: 240, label: title, interactive: false, draw }));
}

/** The color of a block by its value of a nuisance. */
function shade(nuisance, block) {
  const value = nuisance?.values[block];
  if (!nuisance || value === null) return ink("muted");
  if (nuisance.choices) return ink(`s${value % 8}`);
  const { low, high, to } = new Scale(nuisance.low, nuisance.high, { log: nuisance.log });
  const share = (to(value) - to(low)) / (to(high) - to(low));
  const dark = Number(ink("paper").match(/\d+/)[0]) < 128; // leave out the end that is like the paper
  return cividis(dark ? 0.25 + 0.75 * share : 0.9 * share);
}

const logged = (asked) => asked.ratio && asked.values.flat().every((value) => value === null || value > 0);

function paintSlopes(pen, plot, asked, nuisance) {
  const x = new Scale(0, 0, { choices: asked.levels });
  const y = Scale.of(asked.values.flat(), logged(asked));
  axes(pen, plot, x, y, { bottom: 24 });
  asked.blocks.forEach((_, block) => {
    const points = asked.values.map((of, level) => [x.at(level), of[block] === null ? null : y.at(of[block])]).filter(([, at]) => at !== null);
    pen.strokeStyle = pen.fillStyle = shade(nuisance, block);
    pen.lineWidth = 1.6;
    pen.beginPath();
    points.forEach(([px, py], place) => (place ? pen.lineTo(px, py) : pen.moveTo(px, py)));
    pen.stroke();
    for (const [px, py] of points) dot(pen, px, py, 3);
  });
}

function dot(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function paintModerated(pen, plot, asked, nuisance) {
  const known = asked.contrasts.flat().filter((value) => value !== null);
  const [none, band] = asked.ratio ? [1, [1 / asked.smallest, asked.smallest]] : [0, [-asked.smallest, asked.smallest]];
  const x = nuisance.choices ? new Scale(0, 0, { choices: nuisance.choices }) : Scale.of([nuisance.low, nuisance.high], nuisance.log);
  const y = Scale.of([...known, ...band], asked.ratio);
  axes(pen, plot, x, y, { bottom: 40, xName: nuisance.key });
  pen.strokeStyle = ink("muted");
  line(pen, x.start, y.at(none), x.end, y.at(none));
  pen.setLineDash([3, 3]);
  for (const value of band) line(pen, x.start, y.at(value), x.end, y.at(value));
  pen.setLineDash([]);
  asked.contrasts.forEach((of, place) =>
    of.forEach((value, block) => {
      if (value === null || nuisance.values[block] === null) return;
      pen.fillStyle = ink(`s${place + 1}`);
      const jitter = nuisance.choices ? ((block * 13) % 17) - 8 : 0;
      dot(pen, x.at(nuisance.values[block]) + jitter, y.at(value), 3.5);
    }),
  );
}

function paintBest(pen, plot, asked) {
  const most = Math.max(...asked.best.map((of) => of.length));
  const x = Scale.of([1, most], false);
  [x.low, x.high] = [1, Math.max(2, most)];
  const y = Scale.of(asked.best.flat(), asked.ratio);
  axes(pen, plot, x, y, { bottom: 36, xName: "draws of the nuisances" });
  asked.best.forEach((of, level) => stroke(pen, { points: of.map((value, place) => [x.at(place + 1), y.at(value)]), place: level }, 2));
}

function paintSpread(pen, plot, asked) {
  const { levels } = asked.curves;
  const all = levels.flatMap(({ low, high }) => [...low, ...high]);
  const y = Scale.of(all, all.every((value) => value > 0) && spread({ values: all }) > 5);
  const x = Scale.of([0, ...levels.flatMap(({ steps }) => steps)], false);
  x.low = 0;
  axes(pen, plot, x, y, { left: 54, bottom: 36, xName: "step" });
  levels.forEach(({ steps, low, middle, high }, level) => {
    const there = (values) => steps.map((step, place) => [x.at(step), y.at(values[place])]);
    pen.fillStyle = curveColor(level);
    pen.globalAlpha = 0.16;
    pen.beginPath();
    [...there(low), ...there(high).reverse()].forEach(([px, py], place) => (place ? pen.lineTo(px, py) : pen.moveTo(px, py)));
    pen.fill();
    pen.globalAlpha = 1;
    stroke(pen, { points: there(middle), place: level }, 2);
  });
}

/** Pictures of the same blocks at the last step: a column per block, a row per level, everywhere the same frames and z. */
function drawQuestionSheet(asked) {
  const kind = $("question-kind").value;
  const picture = (number) => sweep.question_pictures[number]?.[kind];
  const shown = asked.sheet.trials.map((numbers, place) => ({ numbers, block: asked.sheet.blocks[place] })).filter(({ numbers }) => numbers.some(picture));
  $("question-kind").disabled = !shown.length;
  $("question-sheet").replaceChildren(
    ...shown.map(({ numbers, block }) =>
      el("figure", {}, el("figcaption", {}, `block ${block}`), ...numbers.map((number, level) => {
        const found = picture(number);
        const label = el("p", { class: "muted small" }, el("i", { class: `dot s${level}` }), `${asked.levels[level]}, ${number === null ? "no trial" : `trial ${number}`}`);
        return el("div", {}, label, found ? el("img", { src: found.source, alt: `${kind.replace("_", " ")} of trial ${number}, ${asked.levels[level]}, block ${block}` }) : el("p", { class: "muted small" }, "no picture"));
      })),
    ),
  );
}

function questionControls() {
  $("question").replaceChildren(...sweep.questions.map(({ name }, place) => el("option", { value: place }, name)));
  for (const part of document.querySelectorAll(".with-questions")) part.hidden = !sweep.questions.length;
  nuisanceControl();
}

function nuisanceControl() {
  const asked = question();
  if (!asked) return;
  $("question-nuisance").replaceChildren(...asked.nuisances.map(({ key }) => el("option", { value: key }, key)));
  if (asked.strongest) $("question-nuisance").value = asked.strongest.key;
  $("question-kind").replaceChildren(...Object.keys(DATA.kinds).filter((kind) => Object.values(sweep.question_pictures).some((of) => kind in of)).map((kind) => el("option", { value: kind }, kind.replace("_", " "))));
}

if ($("answers")) {
  $("question").addEventListener("change", () => (nuisanceControl(), drawQuestion()));
  $("question-nuisance").addEventListener("change", drawQuestion);
  $("question-kind").addEventListener("change", () => drawQuestionSheet(question()));
  views.push((what) => {
    if (what === "sweep") questionControls(), drawForest(), drawQuestion();
    else if (what === "theme") for (const plot of [...questionPlots, ...(forest ? [forest] : [])]) plot.paint();
  });
}
