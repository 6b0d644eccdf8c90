/* Small helps on the admin's pages; every page can be read without them. */
(() => {
  "use strict";

  // -- charts: a tooltip from the numbers in the chart's own table -------------------------------------------
  const chartTip = (plot) => {
    const figure = plot.closest(".mb-chart");
    const canvas = plot.querySelector(".mb-canvas");
    const rows = [...figure.querySelectorAll(".mb-data tbody tr")];
    const heads = [...figure.querySelectorAll(".mb-data thead th")].slice(1).map((th) => th.textContent.trim());
    if (!rows.length) return;
    let tip, cursor, shown = -1;
    const hide = () => { tip?.remove(); cursor?.remove(); tip = cursor = null; shown = -1; };
    const show = (index) => {
      if (index === shown) return;
      hide();
      shown = index;
      const cells = [...rows[index].children].map((cell) => cell.textContent.trim());
      const part = (index + 0.5) / rows.length;
      cursor = document.createElement("div");
      cursor.className = "mb-cursor";
      cursor.style.left = `${part * 100}%`;
      tip = document.createElement("div");
      tip.className = "mb-tip";
      const day = document.createElement("b");
      day.textContent = cells[0];
      tip.append(day);
      heads.forEach((head, i) => {
        const line = document.createElement("div");
        line.textContent = `${head}: ${cells[i + 1]}`;
        tip.append(line);
      });
      canvas.append(cursor, tip);
      const left = Math.min(Math.max(part * canvas.clientWidth + 10, 0), canvas.clientWidth - tip.offsetWidth);
      tip.style.left = `${part > 0.6 ? Math.max(part * canvas.clientWidth - tip.offsetWidth - 10, 0) : left}px`;
      tip.style.top = "0.5rem";
    };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      show(Math.max(0, Math.min(rows.length - 1, Math.floor(((event.clientX - box.left) / box.width) * rows.length))));
    };
    canvas.addEventListener("pointermove", at);
    canvas.addEventListener("pointerdown", at);
    canvas.addEventListener("pointerleave", hide);
    canvas.tabIndex = 0;
    canvas.addEventListener("blur", hide);
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); show(Math.max(0, Math.min(rows.length - 1, (shown < 0 ? rows.length : shown) + step))); }
      if (event.key === "Escape") hide();
    });
  };

  // -- copy buttons ------------------------------------------------------------------------------------------
  const copyButton = (block) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "mb-copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(block.querySelector("pre").textContent.trim());
        button.textContent = "Copied";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(block.querySelector("pre"));
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.append(button);
  };

  // -- dialogs: focus goes in, stays in, and comes back ------------------------------------------------------
  let opener = null;
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.getAttribute("hx-target") === "#modal-content") opener = event.target;
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id !== "modal-content") return;
    event.target.setAttribute("role", "dialog");
    event.target.setAttribute("aria-modal", "true");
    event.target.setAttribute("aria-labelledby", "dialog-title");
    setTimeout(() => (event.target.querySelector("input:not([type=hidden]), select, textarea, button[type=submit]"))?.focus(), 60);
  });
  document.addEventListener("keydown", (event) => {
    const modal = document.getElementById("modal-content");
    if (!modal || !modal.offsetParent) return;
    if (event.key === "Escape") { opener?.focus(); return; }
    if (event.key !== "Tab") return;
    const stops = [...modal.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea")].filter((e) => !e.disabled && e.offsetParent);
    if (!stops.length) return;
    const first = stops[0], last = stops[stops.length - 1];
    if (event.shiftKey && (document.activeElement === first || !modal.contains(document.activeElement))) { event.preventDefault(); last.focus(); }
    else if (!event.shiftKey && (document.activeElement === last || !modal.contains(document.activeElement))) { event.preventDefault(); first.focus(); }
  });
  // A refusal must not leave a dialog that seems to do nothing.
  document.addEventListener("htmx:responseError", () => {
    alert("This did not work. You may lack the permission, or your session has ended; reload the page and try again.");
  });

  // The searching select's box has no name of its own; it takes its label's.
  const nameBoxes = () => document.querySelectorAll("select.select2-hidden-accessible").forEach((select) => {
    const box = select.nextElementSibling?.querySelector(".select2-selection__rendered");
    box?.setAttribute("aria-label", select.labels[0]?.firstChild.textContent.trim() ?? select.name);
  });

  // -- a button pressed twice sends once ---------------------------------------------------------------------
  const sent = new Map();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (Date.now() - (sent.get(form) ?? -Infinity) < 15000) { event.preventDefault(); event.stopImmediatePropagation(); return; }
    sent.set(form, Date.now());
    // Refused by another script, and nothing left: it may be sent once it is put right.
    setTimeout(() => { if (event.defaultPrevented && !form.hasAttribute("hx-post")) sent.delete(form); });
  }, true);
  // Back from another page, or an answer that left the form where it is: it may be sent again.
  addEventListener("pageshow", () => sent.clear());
  document.addEventListener("htmx:afterRequest", () => sent.clear());

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".mb-plot").forEach(chartTip);
    document.querySelectorAll(".mb-pre").forEach(copyButton);
    // After Django's own script, which makes the boxes when jQuery is ready.
    window.django?.jQuery?.(nameBoxes);
  });
})();
