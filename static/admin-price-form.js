/* The price's form: hides what the type and the way of pricing do not need, adds meters, tiers and other rows, and says
   what a typed price means.
   Amounts are texts of digits all the way; nothing here makes a floating-point number of them. */
(() => {
  "use strict";
  const start = () => {
    const digits = JSON.parse(document.getElementById("currency-digits").textContent);
    const template = document.getElementById("charge-template");
    const form = template.closest("form");
    const rows = document.getElementById("charge-rows");
    const add = document.getElementById("add-charge");
    const total = form.elements["charges-TOTAL_FORMS"];
    const MOST = 10;

    /* Moves the decimal point to the right: "0.001", 2 gives "0.1". */
    const shift = (text, places) => {
      if (!/^\d*\.?\d*$/.test(text) || !/\d/.test(text)) return null;
      let [whole, fraction = ""] = text.split(".");
      fraction = fraction.padEnd(places, "0");
      whole += fraction.slice(0, places);
      fraction = fraction.slice(places).replace(/0+$/, "");
      whole = whole.replace(/^0+(?=\d)/, "") || "0";
      return fraction ? `${whole}.${fraction}` : whole;
    };
    const one = (unit) => unit.length > 3 && unit.endsWith("s") && !unit.endsWith("ss") ? unit.slice(0, -1) : unit;
    const minorName = (currency, places) => ({ USD: "cents", EUR: "cents", CAD: "cents", AUD: "cents", GBP: "pence" })[currency] || (places ? `1/${10 ** places} ${currency}` : currency);

    const refresh = () => {
      const type = form.elements.type.value;
      const currency = form.elements.currency.value;
      const places = currency in digits ? digits[currency] : 2;
      form.querySelectorAll("[data-when-usage]").forEach((e) => e.classList.toggle("mb-hidden", type !== "usage_based_price"));
      form.querySelectorAll("[data-when-recurring]").forEach((e) => e.classList.toggle("mb-hidden", type === "one_time_price"));
      form.querySelectorAll("[data-currency]").forEach((e) => { e.textContent = currency; });
      rows.querySelectorAll(".mb-charge").forEach((row) => {
        const model = row.querySelector("select[name$=-model]").value || "per_unit";
        row.querySelectorAll("[data-models]").forEach((e) => e.classList.toggle("mb-hidden", !e.dataset.models.split(" ").includes(model)));
        const price = row.querySelector("input[name$=price_per_unit]").value.trim();
        const select = row.querySelector("select[name$=-meter]");
        const label = select.selectedIndex > 0 ? select.options[select.selectedIndex].text : "";
        const unit = one((label.match(/\(([^()]*)\)(?: – archived)?$/) || [, "unit"])[1]);
        const minor = shift(price, places);
        row.querySelector("[data-means]").textContent = minor === null ? "" : `${currency} ${price} per ${unit} = ${minor} ${minorName(currency, places)} on the API`;
      });
      add.hidden = rows.children.length >= MOST;
    };
    /* A list of rows within a row: tiers, prices by value, discounts. */
    const numberLines = (list) => {
      list.querySelectorAll("[data-row]").forEach((line, index) => {
        line.querySelectorAll("input").forEach((e) => e.setAttribute("aria-label", e.getAttribute("aria-label").replace(/, row \d+$/, `, row ${index + 1}`)));
      });
    };
    const addable = (list) => {
      if (list.dataset.ready) return;
      list.dataset.ready = "1";
      const lines = () => list.querySelectorAll("[data-row]");
      const blank = (line) => [...line.querySelectorAll("input")].every((e) => !e.value.trim());
      const button = (text, css, act) => {
        const made = document.createElement("button");
        made.type = "button";
        made.className = `mb-button mb-tiny ${css}`;
        made.textContent = text;
        made.addEventListener("click", act);
        return made;
      };
      const removableLine = (line) => {
        line.classList.add("mb-removable");
        const cross = button("×", "mb-remove-line", () => {
          if (lines().length > 1) line.remove(); else line.querySelectorAll("input").forEach((e) => { e.value = ""; });
          numberLines(list);
        });
        cross.setAttribute("aria-label", "Remove this row");
        line.append(cross);
      };
      /* The server leaves two blank rows for pages without a script; one is enough here. */
      [...lines()].slice(1).forEach((line) => { if (blank(line) && lines().length > 1) line.remove(); });
      list.querySelector(".mb-rowhead").classList.add("mb-removable");
      lines().forEach(removableLine);
      list.append(button(list.dataset.add, "mb-add-line", (event) => {
        const line = lines()[0].cloneNode(true);
        line.querySelector("button").remove();
        line.querySelectorAll("input").forEach((e) => { e.value = ""; });
        event.currentTarget.before(line);
        removableLine(line);
        numberLines(list);
        line.querySelector("input").focus();
      }));
    };
    const renumber = () => {
      [...rows.children].forEach((row, index) => {
        row.querySelectorAll("[name], [id], [for], [aria-describedby], [aria-labelledby]").forEach((e) => {
          for (const attribute of ["name", "id", "for", "aria-describedby", "aria-labelledby"]) {
            const value = e.getAttribute(attribute);
            if (value) e.setAttribute(attribute, value.replace(/charges-(\d+|__prefix__)-/g, `charges-${index}-`));
          }
        });
      });
      total.value = rows.children.length;
    };
    const removable = (row) => {
      row.querySelectorAll("[data-rows]").forEach(addable);
      if (row.querySelector(".mb-remove")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "mb-button mb-tiny mb-remove";
      button.textContent = "Remove this meter";
      button.style.marginTop = ".5rem";
      button.addEventListener("click", () => { row.remove(); renumber(); refresh(); });
      row.append(button);
    };
    [...rows.children].forEach(removable);
    add.addEventListener("click", () => {
      rows.append(template.content.cloneNode(true));
      const row = rows.lastElementChild;
      removable(row);
      renumber();
      refresh();
      row.querySelector("select").focus();
    });
    form.addEventListener("input", refresh);
    form.addEventListener("change", refresh);
    refresh();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
