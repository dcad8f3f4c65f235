// Keys of the console. All of it works without: every key presses a button or follows a link that is there.
"use strict";
(function () {
  var place = 0;

  function rows() { return Array.from(document.querySelectorAll(".queue tbody tr")); }

  function go(to) {
    var all = rows();
    if (!all.length) { return; }
    place = Math.max(0, Math.min(to, all.length - 1));
    all.forEach(function (row, number) { row.classList.toggle("current", number === place); });
    var link = all[place].querySelector("a.open");
    link.focus({ preventScroll: true });
    all[place].scrollIntoView({ block: "nearest" });
  }

  function chosen() { return document.querySelectorAll(".queue input[name=id]:checked").length; }

  function press(what) {
    var button = document.querySelector("#acts button[value=" + what + "]");
    if (!button) { return; }
    if (rows().length && !chosen()) { rows()[place].querySelector("input[name=id]").checked = true; }
    button.click();
  }

  function follow(selector) {
    var link = document.querySelector(selector);
    if (link) { link.click(); }
  }

  var keys = {
    j: function () {
      var form = document.querySelector("#acts[data-next]");
      if (rows().length) { go(place + 1); } else if (form && !form.dataset.last) { window.location.assign(form.dataset.next); }
    },
    k: function () { if (rows().length) { go(place - 1); } else { window.history.back(); } },
    f: function () { press("fraud"); },
    o: function () { press("fine"); },
    u: function () { press("unsure"); },
    s: function () { press("snooze"); },
    a: function () { press("take"); },
    x: function () {
      var row = rows()[place];
      if (row) { var box = row.querySelector("input[name=id]"); box.checked = !box.checked; }
    },
    q: function () { follow("nav a"); },
    "?": function () {
      var help = document.getElementById("help");
      if (help && !help.open) { help.showModal(); }
    }
  };

  document.addEventListener("keydown", function (event) {
    var on = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) { return; }
    if (on.matches && on.matches("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape") { on.blur(); }
      return;
    }
    if (document.querySelector("dialog[open]")) { return; }
    if (Object.prototype.hasOwnProperty.call(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  document.addEventListener("click", function (event) {
    var row = event.target.closest ? event.target.closest(".queue tbody tr") : null;
    if (row && !event.target.closest("a, input")) { go(rows().indexOf(row)); }
  });

  // Names in a rule: those that fit the word before the caret, chosen by arrows and Enter or Tab, or by a click.
  function word(area) {
    var before = area.value.slice(0, area.selectionStart);
    var quotes = (before.match(/'/g) || []).length;
    var found = before.match(/[\p{L}_][\p{L}\p{N}_.]*$/u);
    return quotes % 2 || !found ? "" : found[0];
  }

  function options() { return Array.from(document.querySelectorAll("#names li:not([hidden])")); }

  function select(to) {
    var all = options(), area = document.getElementById("when");
    all.forEach(function (each, number) { each.setAttribute("aria-selected", String(number === to)); });
    if (all[to]) {
      area.setAttribute("aria-activedescendant", all[to].id);
      all[to].scrollIntoView({ block: "nearest" });
    } else { area.removeAttribute("aria-activedescendant"); }
  }

  function close() {
    var list = document.getElementById("names"), area = document.getElementById("when");
    if (list) { list.hidden = true; area.setAttribute("aria-expanded", "false"); area.removeAttribute("aria-activedescendant"); }
  }

  function complete(area) {
    var list = document.getElementById("names"), typed = word(area).toLowerCase(), shown = 0;
    Array.from(list.children).forEach(function (each) {
      var name = each.dataset.name.toLowerCase();
      var fits = typed && name !== typed && name.indexOf(typed) >= 0 && shown < 20;
      each.hidden = !fits;
      if (fits) { shown += 1; }
    });
    list.hidden = !shown;
    area.setAttribute("aria-expanded", String(!list.hidden));
    if (shown) { select(0); }
  }

  function take(option) {
    var area = document.getElementById("when"), at = area.selectionStart, typed = word(area), name = option.dataset.name;
    var plain = /^[\p{L}_][\p{L}\p{N}_]*$/u.test(name);
    var text = option.dataset.function ? name + "(" : plain ? name : '"' + name.replace(/"/g, '""') + '"';
    area.setRangeText(text, at - typed.length, at, "end");
    close();
    area.focus();
  }

  document.addEventListener("input", function (event) {
    if (event.target.id === "when") { complete(event.target); }
  });

  document.addEventListener("keydown", function (event) {
    var list = document.getElementById("names");
    if (event.target.id !== "when" || !list || list.hidden) { return; }
    var all = options(), at = all.findIndex(function (each) { return each.getAttribute("aria-selected") === "true"; });
    if (event.key === "ArrowDown") { select(Math.min(at + 1, all.length - 1)); }
    else if (event.key === "ArrowUp") { select(Math.max(at - 1, 0)); }
    else if (event.key === "Enter" || event.key === "Tab") { take(all[Math.max(at, 0)]); }
    else if (event.key === "Escape") { close(); }
    else { return; }
    event.preventDefault();
    event.stopImmediatePropagation();
  });

  document.addEventListener("mousedown", function (event) {
    var option = event.target.closest ? event.target.closest("#names li") : null;
    if (option) { event.preventDefault(); take(option); } else if (event.target.id !== "when") { close(); }
  });

  // What if: a slider writes its number into the field beside it, and shows what it comes to once it is let go.
  document.addEventListener("input", function (event) {
    var slider = event.target, name = slider.dataset && slider.dataset.for;
    if (!name) { return; }
    var value = Number(slider.value);
    slider.form.elements[name].value = slider.dataset.scale === "digits" ? Number((1 - Number(Math.pow(10, -value).toPrecision(2))).toFixed(8)) : value;
  });

  document.addEventListener("change", function (event) {
    if (event.target.dataset && event.target.dataset.for) { event.target.form.requestSubmit(); }
  });

  function begin() { go(place); }
  document.addEventListener("DOMContentLoaded", begin);
  document.addEventListener("htmx:afterSettle", function (event) {
    if (event.target === document.body) { begin(); }
  });
})();
