// Sorts and filters tables, shows and hides groups of their columns. Controls are buttons, boxes and lists, so the
// keyboard works without further code. Controls that are hidden without JavaScript have `data-scripted`.
"use strict";

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
  return text === "" || text === "–" ? null : isNaN(Number(text)) ? text.toLowerCase() : Number(text);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = Array.from(body.rows, (row) => [valueOf(row, header.cellIndex), row]);
  const empty = rows.filter(([value]) => value === null); // they come last in both orders
  const full = rows.filter(([value]) => value !== null).sort((a, b) => compare(a[0], b[0]));
  if (descending) full.reverse();
  body.append(...[...full, ...empty].map(([, row]) => row));
}

// Shows the rows that contain all words of #filter, and have the chosen value of each list: a row has its values of the
// list `select[data-fact="run"]` in `data-run`, a line each.
function applyFilters() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const facts = Array.from(document.querySelectorAll("select[data-fact]"), (list) => [list.dataset.fact, list.value]);
  const rows = document.querySelectorAll(".standings tbody tr");
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = facts.every(([fact, value]) => !value || row.dataset[fact].split("\n").includes(value));
    row.hidden = !(fits && words.every((word) => text.includes(word)));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length} shown`;
}

for (const controls of document.querySelectorAll("[data-scripted]")) controls.hidden = false;

for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

for (const box of document.querySelectorAll("input[data-group]")) {
  const apply = () => document.body.classList.toggle(`without-${box.dataset.group}`, !box.checked);
  box.addEventListener("change", apply);
  apply();
}

if (document.getElementById("filter")) {
  document.getElementById("filter").addEventListener("input", applyFilters);
  for (const list of document.querySelectorAll("select[data-fact]")) list.addEventListener("change", applyFilters);
  applyFilters();
}
