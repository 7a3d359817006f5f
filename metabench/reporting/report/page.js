// Sorts and filters the table of all methods. Headers are buttons, so the keyboard works without further code.
"use strict";

const table = document.getElementById("methods");
const body = table.tBodies[0];
const filter = document.getElementById("filter");
const count = document.getElementById("count");

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
  return text === "" ? null : isNaN(Number(text)) ? text.toLowerCase() : Number(text);
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null); // empty cells come last in both orders
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortBy(header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = Array.from(body.rows, (row) => [valueOf(row, header.cellIndex), row]);
  const empty = rows.filter(([value]) => value === null);
  const full = rows.filter(([value]) => value !== null).sort((a, b) => compare(a[0], b[0]));
  if (descending) full.reverse();
  body.append(...[...full, ...empty].map(([, row]) => row));
}

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  count.textContent = `${shown} of ${body.rows.length} shown`;
}

for (const header of table.tHead.rows[0].cells) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
filter.addEventListener("input", applyFilter);
applyFilter();
