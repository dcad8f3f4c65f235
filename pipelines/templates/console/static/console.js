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

  function begin() { go(place); }
  document.addEventListener("DOMContentLoaded", begin);
  document.addEventListener("htmx:afterSettle", function (event) {
    if (event.target === document.body) { begin(); }
  });
})();
