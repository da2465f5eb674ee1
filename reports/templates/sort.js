"use strict";
// Sort and filter the tables. No name or number of a run is in here: all of it is read from the page.
(() => {
  const order = new Intl.Collator("en", { numeric: true });

  const key = (row, place) => {
    const cell = row.cells[place];
    if (cell.classList.contains("number")) return cell.dataset.sort === undefined ? undefined : Number(cell.dataset.sort);
    return cell.classList.contains("missing") ? undefined : [...cell.childNodes].find((node) => node.nodeType === Node.TEXT_NODE)?.data;
  };

  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));

  // What is missing stays last, whichever way the rest is sorted; equal rows keep their order.
  const sort = (body, place, sign) => {
    const keyed = [...body.rows].map((row) => [key(row, place), row]);
    const rank = (value) => (value === undefined || Number.isNaN(value) ? 1 : 0);
    keyed.sort(([a], [b]) => rank(a) - rank(b) || (rank(a) ? 0 : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
  };

  for (const heading of document.querySelectorAll("th[aria-sort]")) {
    heading.querySelector("button").addEventListener("click", () => {
      const next = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", next);
      sort(heading.closest("table").tBodies[0], heading.cellIndex, next === "ascending" ? 1 : -1);
    });
  }

  const filter = (sheet, words) => {
    const rows = [...sheet.querySelectorAll("tbody tr")];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    sheet.querySelector("output").value = words.length ? `${shown} of ${rows.length} rows` : "";
  };

  for (const sheet of document.querySelectorAll(".sheet")) {
    if (Number(sheet.dataset.rows) < 8) continue;
    sheet.querySelector(".filter").hidden = false;
    const input = sheet.querySelector("input");
    input.addEventListener("input", () => {
      filter(sheet, input.value.toLowerCase().split(/\s+/).filter(Boolean));
    });
  }

  // On paper everything is open but the points of pictures, which would fill hundreds of pages.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open], .drawn)")) {
      details.open = true;
      opened.push(details);
    }
  });
  addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
  });
})();
