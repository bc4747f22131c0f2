"use strict";
// The explorer: sorts by a press on a column's head, filters by the form above. Without JavaScript the table is whole.
(() => {
  const grid = document.getElementById("grid");
  const filters = document.getElementById("filters");
  const body = grid.tBodies[0];
  const rows = [...body.rows];

  const filter = () => {
    const wanted = Object.fromEntries(new FormData(filters));
    const arms = wanted.paper ? wanted.paper.split(" ") : null;
    const part = wanted.arm.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const { dataset, arm, kind } = row.dataset;
      row.hidden = Boolean(
        (wanted.dataset && dataset !== wanted.dataset) || (wanted.kind && kind !== wanted.kind) ||
        (arms && !arms.includes(arm)) || (part && !arm.toLowerCase().includes(part)));
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} rows`;
  };

  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.textContent === "–" ? NaN : cell.textContent;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  const sort = (head) => {
    const descending = head.getAttribute("aria-sort") === "none" ? head.classList.contains("r")
      : head.getAttribute("aria-sort") === "ascending";
    for (const other of grid.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const known = rows.map((row) => [key(row, head.cellIndex), row]);
    known.sort(([a], [b]) => Number.isNaN(a) - Number.isNaN(b) || (descending ? compare(b, a) : compare(a, b)));
    body.append(...known.map(([, row]) => row)); // what was not measured stays last, whichever way
  };

  grid.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sort(button.parentElement);
  });
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  // A link shows where it leads: it opens what is folded, and shows a row whatever the filters say.
  const reveal = () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let fold = row?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    const inside = row?.matches(".claim, #explorer") && row.querySelector("details");
    if (inside) inside.open = true;
    if (row && body.contains(row)) { filters.reset(); filter(); row.scrollIntoView({ block: "center" }); }
  };
  window.addEventListener("hashchange", reveal);
  filter();
  reveal();
})();
