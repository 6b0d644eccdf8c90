/* The price's form: hides what the type does not need, adds meter rows, and says what a typed price means.
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
        const price = row.querySelector("input[name$=price_per_unit]").value.trim();
        const select = row.querySelector("select");
        const label = select.selectedIndex > 0 ? select.options[select.selectedIndex].text : "";
        const unit = one((label.match(/\(([^()]*)\)(?: – archived)?$/) || [, "unit"])[1]);
        const minor = shift(price, places);
        row.querySelector("[data-means]").textContent = minor === null ? "" : `${currency} ${price} per ${unit} = ${minor} ${minorName(currency, places)} on the API`;
      });
      add.hidden = rows.children.length >= MOST;
    };
    const renumber = () => {
      [...rows.children].forEach((row, index) => {
        row.querySelectorAll("[name], [id], [for], [aria-describedby]").forEach((e) => {
          for (const attribute of ["name", "id", "for", "aria-describedby"]) {
            const value = e.getAttribute(attribute);
            if (value) e.setAttribute(attribute, value.replace(/charges-(\d+|__prefix__)-/g, `charges-${index}-`));
          }
        });
      });
      total.value = rows.children.length;
    };
    const removable = (row) => {
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
