// Axes and marks on a canvas, with a second canvas above it for what follows the pointer.

const probe = document.body.appendChild(el("i", { class: "hidden", "aria-hidden": "true" }));
const inks = new Map();

/** A color of the style sheet in the present theme. */
function ink(name) {
  if (!inks.has(name)) {
    probe.style.color = `var(--${name})`;
    inks.set(name, getComputedStyle(probe).color);
  }
  return inks.get(name);
}
views.push((what) => what === "theme" && inks.clear());

/** "1.2k" and the like; what an axis has room for. */
function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
  return size >= 1e4 ? `${Number((value / 1e3).toPrecision(3))}k` : String(Number(value.toPrecision(3)));
}

/** Maps values to pixels, and back; `ticks` are where lines go. */
class Scale {
  constructor(low, high, { log = false, choices = null } = {}) {
    if (choices) [low, high] = [-0.5, Math.max(choices.length, 1) - 0.5];
    else if (!(high > low)) [low, high] = log ? [low / 2, low * 2] : [low - (Math.abs(low) || 1) / 2, low + (Math.abs(low) || 1) / 2];
    Object.assign(this, { low, high, log, choices });
    this.to = log ? Math.log10 : (value) => value;
    this.from = log ? (value) => 10 ** value : (value) => value;
  }
  /** The scale of the values that are there, with a little room. */
  static of(values, log) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) if (value !== null && (!log || value > 0)) [low, high] = [Math.min(low, value), Math.max(high, value)];
    if (low > high) [low, high] = log ? [1, 10] : [0, 1];
    const room = log ? (high / low) ** 0.05 : (high - low) * 0.05;
    return log ? new Scale(low / room, high * room, { log }) : new Scale(low - room, high + room);
  }
  range(start, end) {
    Object.assign(this, { start, end });
    return this;
  }
  at(value) {
    const [low, high] = [this.to(this.low), this.to(this.high)];
    return this.start + ((this.to(value) - low) / (high - low)) * (this.end - this.start);
  }
  back(pixel) {
    const [low, high] = [this.to(this.low), this.to(this.high)];
    return this.from(low + ((pixel - this.start) / (this.end - this.start)) * (high - low));
  }
  ticks(wanted) {
    if (this.choices) return this.choices.map((_, place) => place);
    if (this.log) {
      const found = [];
      const decades = Math.log10(this.high / this.low);
      const steps = decades < 1.2 ? [1, 2, 3, 5, 7] : decades < 3 ? [1, 3] : [1];
      const every = Math.max(1, Math.round(decades / wanted));
      for (let power = Math.floor(Math.log10(this.low)); power <= Math.log10(this.high); power += every)
        for (const step of steps) found.push(Number((step * 10 ** power).toPrecision(12)));
      const inside = found.filter((value) => value >= this.low && value <= this.high);
      if (inside.length > 1) return inside;
    }
    const rough = (this.high - this.low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    const found = [];
    for (let place = Math.ceil(this.low / step); place * step <= this.high; place++) found.push(place * step);
    return found.length > 1 || wanted > 8 ? found : this.ticks(wanted + 1);
  }
  label(value) {
    return this.choices ? this.choices[value] : tick(value);
  }
}

/** A figure: `draw(pen, plot)` paints the marks, `over(pen, plot)` what follows the pointer. */
class Plot {
  constructor(box, { height, label, draw, over = () => {}, width = null, brushable = false, interactive = true }) {
    this.box = el("div", { class: `plot${brushable ? " brushable" : ""}`, role: "img", "aria-label": label });
    if (interactive) this.box.tabIndex = 0;
    this.canvases = ["base", "over"].map((name) => this.box.appendChild(el("canvas", { class: name, "aria-hidden": "true" })));
    Object.assign(this, { height, draw, over, minimum: width });
    this.box.style.height = `${height}px`;
    box.append(this.box);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.box);
  }
  remove() {
    this.observer.disconnect();
    this.box.remove();
  }
  resize() {
    if (this.minimum) this.box.style.width = `${Math.max(this.minimum(), this.box.parentElement.clientWidth)}px`;
    const { clientWidth } = this.box;
    if (!clientWidth) return;
    this.width = clientWidth;
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of this.canvases) [canvas.width, canvas.height] = [clientWidth * ratio, this.height * ratio];
    this.paint();
  }
  pen(place) {
    const pen = this.canvases[place].getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = "12px system-ui, sans-serif";
    return pen;
  }
  paint() {
    if (!this.width) return;
    this.draw(this.pen(0), this);
    this.paintOver();
  }
  paintOver() {
    if (this.width) this.over(this.pen(1), this);
  }
  /** Where the pointer is, in the plot's pixels. */
  where(event) {
    const box = this.canvases[1].getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
}

/** Lines, ticks and names of two axes. */
function axes(pen, plot, x, y, { left = 58, right = 12, top = 10, bottom = 40, xName = "", yName = "" } = {}) {
  x.range(left, plot.width - right);
  y.range(plot.height - bottom, top);
  pen.lineWidth = 1;
  pen.strokeStyle = ink("line");
  pen.fillStyle = ink("muted");
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const value of y.ticks(5)) {
    const at = Math.round(y.at(value)) + 0.5;
    line(pen, left, at, plot.width - right, at);
    pen.fillText(y.label(value), left - 6, at, left - 8);
  }
  pen.textBaseline = "top";
  pen.textAlign = "center";
  const wanted = x.ticks(Math.max(2, Math.floor((plot.width - left - right) / 90)));
  const room = (plot.width - left - right) / Math.max(1, x.choices ? wanted.length : 1);
  const taken = [];
  const round = (value) => x.log && Number.isInteger(Math.log10(value)); // powers of ten get their label first
  for (const value of [...wanted.filter(round), ...wanted.filter((each) => !round(each))]) {
    const at = Math.round(x.at(value)) + 0.5;
    if (!x.choices) line(pen, at, top, at, plot.height - bottom);
    const text = x.choices ? clipped(pen, x.label(value), room - 4) : x.label(value);
    const half = pen.measureText(text).width / 2;
    const middle = Math.min(at, plot.width - half - 1);
    if (taken.some(([from, to]) => middle - half < to + 6 && middle + half > from - 6)) continue;
    pen.fillText(text, middle, plot.height - bottom + 6);
    taken.push([middle - half, middle + half]);
  }
  pen.strokeStyle = ink("muted");
  line(pen, left, plot.height - bottom + 0.5, plot.width - right, plot.height - bottom + 0.5);
  pen.fillStyle = ink("ink");
  if (xName) pen.fillText(clipped(pen, xName, plot.width - left), (left + plot.width - right) / 2, plot.height - 15);
  if (yName) {
    pen.save();
    pen.translate(12, (top + plot.height - bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textBaseline = "middle";
    pen.fillText(clipped(pen, yName, plot.height - bottom), 0, 0);
    pen.restore();
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function clipped(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  while (text.length > 1 && pen.measureText(`${text}…`).width > room) text = text.slice(0, -1);
  return `${text}…`;
}

/** A trial's mark: filled at full fidelity, hollow where it ended earlier, × where it failed. */
function mark(pen, x, y, index, radius, color) {
  pen.beginPath();
  if (failed(index)) {
    const arm = radius * 0.8;
    pen.moveTo(x - arm, y - arm);
    pen.lineTo(x + arm, y + arm);
    pen.moveTo(x - arm, y + arm);
    pen.lineTo(x + arm, y - arm);
    pen.lineWidth = 1.6;
    pen.strokeStyle = color;
    pen.stroke();
    return;
  }
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  if (completed(index)) {
    pen.fillStyle = color;
    pen.fill();
  } else {
    pen.lineWidth = 1.2;
    pen.strokeStyle = color;
    pen.stroke();
  }
}

function ring(pen, x, y, color, radius = 8) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.lineWidth = 2;
  pen.strokeStyle = color;
  pen.stroke();
}

/** The color of a chosen trial's curves and of the ring around its mark. */
const curveColor = (place) => ink(`s${place % 8}`);

/** Cividis, which people with any color vision order alike: a share of 0 to 1 becomes a color. */
const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56]];
function cividis(share) {
  const at = Math.min(1, Math.max(0, share)) * (CIVIDIS.length - 1);
  const [one, two] = [CIVIDIS[Math.floor(at)], CIVIDIS[Math.ceil(at)]];
  return `rgb(${one.map((value, place) => Math.round(value + (two[place] - value) * (at % 1))).join(" ")})`;
}
