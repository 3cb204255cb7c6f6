// The table of trials: filtered like every figure, sorted by any column, a page at a time.

const ROWS = 20;
const table = { sort: null, down: false, page: 0, extra: new Set() };

/** Columns of the table: key, heading, text of a cell, what to sort by, and whether it is text. */
function tableColumns() {
  const text = (key, label, coded) => ({ key, label, cell: (index) => word(coded, index), by: (index) => word(coded, index), text: true });
  const number = (key, label = short(key)) => ({ key, label, cell: (index) => shown(key, index), by: (index) => column(key).values[index], title: column(key).meaning, text: Boolean(column(key).choices) });
  const some = (coded) => coded.words.some(Boolean);
  const kl = column("val/kl") && !sweep.objectives.includes("val/kl") ? ["val/kl"] : [];
  const metrics = [...sweep.objectives.filter((key) => column(key)), ...kl];
  return [
    ...(some(sweep.point) ? [text("point", "point", sweep.point)] : []),
    text("outcome", "outcome", sweep.outcome),
    number("step"),
    ...[...metrics, ...[...table.extra].filter((key) => column(key) && !metrics.includes(key))].map((key) => number(key, key === "val/kl" ? "KL, nats" : short(key))),
    ...(some(sweep.diagnoses) ? [text("diagnoses", "diagnoses", sweep.diagnoses)] : []),
    ...(Object.keys(sweep.confirmed).length || sweep.infeasible.length ? [{ key: "confirmed", label: "with fresh seeds (95 %)", cell: (index) => [sweep.confirmed[index], sweep.infeasible.includes(index) && "violates a constraint"].filter(Boolean).join("; "), by: (index) => sweep.confirmed[index] ?? "", text: true }] : []),
    ...sweep.parameters.map((parameter) => number(parameter.key)),
    ...(some(sweep.reason) ? [{ ...text("reason", "why it ended", sweep.reason), long: true }] : []),
  ];
}

/** Places of the trials that pass the filter, in the order of the table. */
function tableOrder(columns) {
  const order = [];
  for (let index = 0; index < size; index++) if (mask[index]) order.push(index);
  const by = table.sort === "trial" ? (index) => sweep.number[index] : columns.find((each) => each.key === table.sort)?.by;
  if (!by) return order;
  const sign = table.down ? -1 : 1;
  const absent = (value) => value === null || value === "";
  return order.sort((one, two) => {
    const [a, b] = [by(one), by(two)];
    if (absent(a) || absent(b)) return absent(a) - absent(b);
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  });
}

function heading({ key, label, title, text }, classes = "") {
  const sorted = table.sort === key ? (table.down ? "descending" : "ascending") : "none";
  const press = () => {
    if (table.sort === key && table.down) Object.assign(table, { sort: null, down: false });
    else Object.assign(table, { down: table.sort === key, sort: key });
    table.page = 0;
    drawTable();
    $("table-box").querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  };
  const button = el("button", { type: "button", onclick: press, "data-key": key, ...(title ? { title } : {}) }, label);
  return el("th", { scope: "col", "aria-sort": sorted, class: `${text ? "text" : ""} ${classes}` }, button);
}

function row(index, columns) {
  const number = sweep.number[index];
  const box = el("input", { type: "checkbox", checked: state.chosen.includes(index), "aria-label": `curves of trial ${number}`, onchange: () => choose(index) });
  const address = runAddress(index);
  const link = address
    ? el("a", { href: address, target: "_blank", rel: "noopener", title: "MLflow run" }, String(number))
    : el("button", { type: "button", class: "link", title: `MLflow run ${sweep.run[index]}`, onclick: (event) => openRun(index, event.clientX, event.clientY) }, String(number));
  const cells = columns.map(({ cell, text, long }) => {
    const content = cell(index);
    return el("td", { class: `${text ? "text" : ""}${long ? " reason" : ""}`, ...(long && content ? { title: content } : {}) }, content);
  });
  const marks = sweep.number[index] === sweep.recommended ? " ★" : sweep.front[index] ? " ●" : "";
  const tr = el("tr", { class: sweep.front[index] ? "front" : "" }, el("td", { class: "first" }, box, " ", link, marks ? el("span", { title: marks === " ★" ? "recommended" : "on the front" }, marks) : ""), ...cells);
  tr.dataset.index = index;
  return tr;
}

function drawTable() {
  const columns = tableColumns();
  const order = tableOrder(columns);
  const pages = Math.max(1, Math.ceil(order.length / ROWS));
  table.page = Math.min(table.page, pages - 1);
  const page = order.slice(table.page * ROWS, (table.page + 1) * ROWS);
  const box = $("table-box");
  box.querySelector("thead").replaceChildren(el("tr", {}, heading({ key: "trial", label: "trial" }, "first"), ...columns.map((each) => heading(each))));
  box.querySelector("tbody").replaceChildren(...page.map((index) => row(index, columns)));
  $("selected").replaceChildren(el("b", {}, `${mask.filtered ? `${count(mask.count)} of ` : ""}${count(size)} trial${size === 1 ? "" : "s"}`), mask.filtered && !mask.count ? ": no trial passes all filters" : "", size ? el("span", { class: "muted" }, " · ● on the front, ★ recommended; tick a trial to see its curves") : "");
  $("clear").disabled = !mask.filtered;
  const go = (change) => () => ((table.page += change), drawTable());
  const button = (label, change, works) => el("button", { type: "button", disabled: !works, onclick: go(change) }, label);
  $("pager").replaceChildren(...(pages > 1 ? [button("← back", -1, table.page > 0), `page ${count(table.page + 1)} of ${count(pages)}`, button("more →", 1, table.page < pages - 1)] : []));
}

function tableControls() {
  $("outcome").replaceChildren(el("option", { value: "" }, "all"), ...sweep.outcome.words.map((name) => el("option", { value: name }, name)));
  const menu = $("columns").querySelector("div");
  menu.replaceChildren(
    ...sweep.metrics
      .filter((metric) => !sweep.objectives.includes(metric.key) && metric.key !== "val/kl")
      .map(({ key, meaning }) => el("label", { title: meaning }, el("input", { type: "checkbox", checked: table.extra.has(key), onchange: (event) => (event.target.checked ? table.extra.add(key) : table.extra.delete(key), drawTable()) }), short(key))),
  );
  $("columns").hidden = !menu.children.length;
}

let typing = 0;
$("filter").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => ((state.text = event.target.value), changed("filter")), size > 3000 ? 150 : 0);
});
$("outcome").addEventListener("change", (event) => ((state.outcome = event.target.value), changed("filter")));
$("clear").addEventListener("click", clearFilters);
const body = $("table-box").querySelector("tbody");
body.addEventListener("pointerover", (event) => hover(Number(event.target.closest("tr")?.dataset.index ?? -1)));
body.addEventListener("pointerleave", () => hover(-1));

views.push((what) => {
  if (what === "sweep") Object.assign(table, { sort: null, down: false }), tableControls();
  if (what === "sweep" || what === "filter") {
    table.page = 0;
    if ($("filter").value !== state.text) $("filter").value = state.text;
    $("outcome").value = state.outcome;
    drawTable();
  }
  if (what === "chosen") for (const tr of body.rows) tr.querySelector("input").checked = state.chosen.includes(Number(tr.dataset.index));
  if (what === "hover") for (const tr of body.rows) tr.classList.toggle("hover", Number(tr.dataset.index) === state.hover);
});
