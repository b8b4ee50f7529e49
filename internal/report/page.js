"use strict";
(function () {
	// the choice is kept where the browser lets a file keep anything
	var root = document.documentElement, button = document.getElementById("theme");
	var system = window.matchMedia("(prefers-color-scheme: dark)");
	function dark() { return root.dataset.theme ? root.dataset.theme === "dark" : system.matches; }
	function label() { button.textContent = dark() ? "Light colours" : "Dark colours"; }
	try {
		var kept = localStorage.getItem("drover-theme");
		if (kept === "dark" || kept === "light") root.dataset.theme = kept;
	} catch (e) { /* not allowed here */ }
	button.addEventListener("click", function () {
		root.dataset.theme = dark() ? "light" : "dark";
		label();
		try { localStorage.setItem("drover-theme", root.dataset.theme); } catch (e) { /* not allowed here */ }
	});
	system.addEventListener("change", label);
	label();
	button.hidden = false;

	var table = document.getElementById("results"), body = table.tBodies[0], said = document.getElementById("sorted");
	var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
	function value(row, column) {
		var cell = row.cells[column];
		return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
	}
	function sort(column) {
		var head = heads[column], up = head.getAttribute("aria-sort") !== "ascending";
		heads.forEach(function (h) { h.removeAttribute("aria-sort"); });
		head.setAttribute("aria-sort", up ? "ascending" : "descending");
		var rows = Array.prototype.slice.call(body.rows).map(function (row, i) { return { row: row, value: value(row, column), at: i }; });
		rows.sort(function (a, b) {
			var order = typeof a.value === "number" ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
			return (up ? order : -order) || a.at - b.at;
		});
		rows.forEach(function (r) { body.appendChild(r.row); });
		said.textContent = "Sorted by " + head.textContent + ", " + (up ? "ascending" : "descending");
	}
	heads.forEach(function (head, column) {
		var b = document.createElement("button");
		b.type = "button";
		b.textContent = head.textContent;
		head.textContent = "";
		head.appendChild(b);
		b.addEventListener("click", function () { sort(column); });
	});
})();
