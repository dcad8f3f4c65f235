"use strict";
for (const area of document.querySelectorAll("[data-sortable]")) {
  const body = area.querySelector("tbody");
  const rows = [...body.rows];
  const find = area.querySelector("input[type=search]");
  const level = area.querySelector("select");
  const count = area.querySelector("output");
  const show = () => {
    const words = find.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(words) && (!level.value || row.dataset.severity === level.value);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.value = shown === rows.length ? "" : shown + " of " + rows.length + " shown";
  };
  find.addEventListener("input", show);
  level.addEventListener("change", show);
  area.querySelector(".controls").hidden = false;
  area.querySelectorAll("th button").forEach((button) => {
    const place = button.closest("th").cellIndex;
    button.addEventListener("click", () => {
      const down = button.closest("th").getAttribute("aria-sort") !== "descending";
      area.querySelectorAll("th").forEach((head) => head.removeAttribute("aria-sort"));
      button.closest("th").setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[place].dataset.value || row.cells[place].textContent.trim();
      rows.sort((a, b) => {
        const [one, other] = [value(a), value(b)];
        const order = one !== "" && other !== "" && !isNaN(one) && !isNaN(other) ? one - other : one.localeCompare(other);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
