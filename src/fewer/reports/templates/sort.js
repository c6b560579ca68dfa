// Click a column head to sort by it; without this script the table stays in forward order.
document.querySelectorAll("table.sortable thead th").forEach(function (head) {
  var button = document.createElement("button");
  button.type = "button";
  while (head.firstChild) button.appendChild(head.firstChild);
  head.appendChild(button);
  button.addEventListener("click", function () {
    var table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
    var down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    Array.from(body.rows).map(function (row) {
      var cell = row.cells[place];
      return { row: row, key: cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value) };
    }).sort(function (a, b) {
      var order = typeof a.key === "number" && typeof b.key === "number" ? a.key - b.key : String(a.key).localeCompare(String(b.key), "en", { numeric: true });
      return down ? -order : order;
    }).forEach(function (item) { body.appendChild(item.row); });
  });
});
