// Lets a reader sort the tables of the zoo by a click on a heading. Without JavaScript they are plain tables.
document.querySelectorAll("table.sortable, .sortable table").forEach((table) => {
  const body = table.tBodies[0];
  const number = (text) => {
    const found = text.replace(/,/g, "").match(/^-?\d+(\.\d+)?/);
    return found ? parseFloat(found[0]) : null;
  };
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? -1 : 1;
    return a.localeCompare(b);
  };
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent.trim();
      const known = (row) => (text(row) === "not measured" ? 1 : 0);
      [...body.rows]
        .sort((a, b) => known(a) - known(b) || (up ? 1 : -1) * compare(text(a), text(b)))
        .forEach((row) => body.append(row));
    });
  });
});
