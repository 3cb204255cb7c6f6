"use strict";
// What is shown: one sweep, the filters on its trials, and the trials chosen for curves. Views subscribe to changes.

const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const FAILED = new Set(["diverged", "failed", "impossible"]);
const state = {
  sweep: 0,
  text: "",
  outcome: "",
  box: null, // {x: key, y: key, ranges: [[low, high], [low, high]]} dragged in the front
  ranges: new Map(), // [low, high] by key, dragged in the parallel coordinates
  chosen: [], // indices of trials, for curves
  hover: -1,
};
let sweep, size, mask;
const views = [];

/** An element with properties and children; text is always text, never markup. */
function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const word = (coded, index) => coded.words[coded.at[index]];
const outcomeOf = (index) => word(sweep.outcome, index);
const failed = (index) => FAILED.has(outcomeOf(index));
const completed = (index) => outcomeOf(index) === "completed";
const short = (key) => key.replace(/^val\//, "");
const format = (value) => (value === null || value === undefined ? "" : String(Number.isInteger(value) ? value : Number(value.toPrecision(4))));

const count = (number) => number.toLocaleString("en");

/** A column of numbers by key; choices count as their place. */
function column(key, of = sweep) {
  of.columns ??= new Map([
    ...of.metrics.map((metric) => [metric.key, { ...metric, isMetric: true }]),
    ...of.parameters.map((parameter) => [parameter.key, parameter]),
    ["trial", { key: "trial", values: of.number }],
    ["step", { key: "step", values: of.step }],
  ]);
  return of.columns.get(key);
}

/** A cell of a column as a person reads it. */
function shown(key, index) {
  const { values, choices } = column(key);
  const value = values[index];
  return value === null ? "" : choices ? choices[value] : format(value);
}

const runAddress = (index) => sweep.runs.replace(/RUN(?=\?)/, sweep.run[index]);

const COMPARE = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b };

/** A test of one word of the filter: `key<number` (or >, <=, >=), `key=text`, or any text. */
function test(part) {
  const [, name, sign, wanted] = part.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/) ?? [];
  const keys = name ? [...(column("trial"), sweep.columns.keys())].filter((key) => key === name || key.endsWith("." + name) || key.endsWith("/" + name)) : [];
  if (keys.length)
    return (index) =>
      keys.some((key) => {
        const value = column(key).values[index];
        if (value === null) return false;
        if (sign === "=") return shown(key, index).toLowerCase() === wanted || value === Number(wanted);
        return COMPARE[sign](value, Number(wanted));
      });
  const places = [sweep.outcome, sweep.point, sweep.diagnoses, sweep.reason];
  const hits = places.map((coded) => coded.words.map((text) => text.toLowerCase().includes(part)));
  return (index) => String(sweep.number[index]) === part || places.some((coded, place) => hits[place][coded.at[index]]);
}

const within = (key, [low, high]) => {
  const { values } = column(key);
  return (index) => values[index] !== null && values[index] >= low && values[index] <= high;
};

function filter() {
  const tests = state.text.toLowerCase().split(/\s+/).filter(Boolean).map(test);
  if (state.outcome) tests.push((index) => outcomeOf(index) === state.outcome);
  if (state.box) tests.push(within(state.box.x, state.box.ranges[0]), within(state.box.y, state.box.ranges[1]));
  for (const [key, range] of state.ranges) tests.push(within(key, range));
  mask = new Uint8Array(size);
  let passed = 0;
  for (let index = 0; index < size; index++) passed += mask[index] = Number(tests.every((holds) => holds(index)));
  mask.count = passed;
  mask.filtered = tests.length > 0;
}

/** Redraws the views that care about a change: "sweep", "filter", "chosen", "hover" or "theme". */
function changed(what) {
  if (what === "filter" || what === "sweep") filter();
  for (const view of views) view(what);
}

function hover(index) {
  if (state.hover === index) return;
  state.hover = index;
  changed("hover");
}

function choose(index) {
  const place = state.chosen.indexOf(index);
  if (place >= 0) state.chosen.splice(place, 1);
  else state.chosen = [...state.chosen, index].slice(-12);
  changed("chosen");
}

function clearFilters() {
  Object.assign(state, { text: "", outcome: "", box: null });
  state.ranges.clear();
  changed("filter");
}

function openSweep(place) {
  sweep = DATA.sweeps[place];
  size = sweep.number.length;
  Object.assign(state, { sweep: place, text: "", outcome: "", box: null, hover: -1 });
  state.ranges.clear();
  const places = new Map(sweep.number.map((number, index) => [number, index]));
  state.chosen = sweep.curves.chosen.map((number) => places.get(number)).filter((index) => index !== undefined);
  changed("sweep");
}

function say(text) {
  $("spoken").textContent = text;
}

/** Copies text, also inside a sandboxed frame, where the clipboard's own interface is closed. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
