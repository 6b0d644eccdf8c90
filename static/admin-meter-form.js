/* The meter's form: a filter builder over the text area that is really sent, and a sample that follows the form. */
(() => {
  "use strict";
  const MAX_LEVELS = 3, MAX_CLAUSES = 10;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };

  const start = () => {
    const area = document.querySelector("[data-filter-builder]");
    const form = area.form;
    const operators = JSON.parse(document.getElementById("filter-operators").textContent);
    let tree = null;
    try { tree = area.value.trim() ? JSON.parse(area.value) : null; } catch { tree = null; }
    if (tree && !Array.isArray(tree.clauses)) tree = null;

    const condition = () => ({ key: "", operator: "equals", value: "" });
    const root = make("div", { id: "filter-root" });
    area.after(root);
    area.hidden = true;
    area.style.display = "none";

    const save = () => {
      area.value = tree && tree.clauses.length ? JSON.stringify(tree) : "";
      sample();
    };
    const focusLast = () => { const all = root.querySelectorAll("input"); if (all.length) all[all.length - 1].closest(".mb-clause").querySelector("input").focus(); };

    const drawClause = (clause, group, place) => make("div", { class: "mb-clause" },
      make("input", { class: "mb-input", "aria-label": "Metadata key", placeholder: "metadata key, e.g. tier", maxlength: 100, value: clause.key,
        autocapitalize: "off", spellcheck: "false", oninput: (e) => { clause.key = e.target.value; save(); } }),
      (() => {
        const select = make("select", { class: "mb-input", "aria-label": "Comparison", onchange: (e) => { clause.operator = e.target.value; save(); } });
        for (const one of operators) {
          const option = make("option", { value: one.value }, one.label);
          option.selected = one.value === clause.operator;
          select.append(option);
        }
        return select;
      })(),
      make("input", { class: "mb-input", "aria-label": "Value", placeholder: "value, e.g. premium", maxlength: 500, value: String(clause.value),
        autocapitalize: "off", spellcheck: "false", oninput: (e) => { clause.value = e.target.value; save(); } }),
      make("button", { type: "button", class: "mb-button mb-tiny", "aria-label": "Remove this condition",
        onclick: () => { group.clauses.splice(place, 1); if (!tree.clauses.length) tree = null; draw(); } }, "Remove"));

    const drawGroup = (group, level, remove) => {
      const select = make("select", { class: "mb-input", "aria-label": "How the conditions combine", onchange: (e) => { group.conjunction = e.target.value; save(); } },
        make("option", { value: "and" }, "all of these (AND)"), make("option", { value: "or" }, "any of these (OR)"));
      select.value = group.conjunction;
      const box = make("div", { class: "mb-group", role: "group", "aria-label": `Filter group, level ${level}` },
        make("div", { class: "mb-group-head" }, make("span", { class: "mb-soft" }, level === 1 ? "Count an event that matches" : "that matches"), select,
          ...(remove ? [make("button", { type: "button", class: "mb-button mb-tiny", onclick: remove }, "Remove group")] : [])));
      group.clauses.forEach((clause, place) => box.append(
        Array.isArray(clause.clauses)
          ? drawGroup(clause, level + 1, () => { group.clauses.splice(place, 1); if (!tree.clauses.length) tree = null; draw(); })
          : drawClause(clause, group, place)));
      const buttons = make("div", { class: "mb-actions", style: "margin-top: .75rem" });
      if (group.clauses.length < MAX_CLAUSES) {
        buttons.append(make("button", { type: "button", class: "mb-button mb-tiny", onclick: () => { group.clauses.push(condition()); draw(); focusLast(); } }, "Add condition"));
        if (level < MAX_LEVELS) buttons.append(make("button", { type: "button", class: "mb-button mb-tiny",
          onclick: () => { group.clauses.push({ conjunction: group.conjunction === "and" ? "or" : "and", clauses: [condition()] }); draw(); focusLast(); } }, "Add group"));
      }
      box.append(buttons);
      return box;
    };

    const draw = () => {
      root.replaceChildren();
      if (tree) root.append(drawGroup(tree, 1, () => { tree = null; draw(); }));
      else root.append(make("p", { class: "mb-soft" }, "Every event of this name counts."),
        make("button", { type: "button", class: "mb-button mb-tiny", onclick: () => { tree = { conjunction: "and", clauses: [condition()] }; draw(); focusLast(); } }, "Add a filter"));
      save();
    };

    const field = (name) => form.elements[name];
    const propertyRow = document.querySelector('[data-field="property_key"]');
    const carryRow = document.querySelector('[data-field="carry_forward"]');
    const code = document.getElementById("sample-code");
    const section = document.getElementById("sample");
    const typed = (text) => text === "true" ? true : text === "false" ? false : /^-?(0|[1-9][0-9]{0,14})$/.test(text) ? Number(text) : text;
    const fill = (node, found) => {
      if (Array.isArray(node.clauses)) { (node.conjunction === "and" ? node.clauses : node.clauses.slice(0, 1)).forEach((one) => fill(one, found)); return; }
      if (!node.key || node.key in found) return;
      let value = typed(String(node.value));
      if (node.operator === "greater_than" && typeof value === "number") value += 1;
      if (node.operator === "less_than" && typeof value === "number") value -= 1;
      if (node.operator === "not_equals" || node.operator === "does_not_contain") value = `not ${value}`;
      found[node.key] = value;
    };
    const sample = () => {
      const needsKey = field("aggregation").value !== "count";
      propertyRow.classList.toggle("mb-hidden", !needsKey);
      carryRow.classList.toggle("mb-hidden", !["last", "weighted_sum"].includes(field("aggregation").value));
      const metadata = {};
      if (tree) fill(tree, metadata);
      const key = field("property_key").value.trim() || "value";
      if (needsKey && !(key in metadata)) metadata[key] = field("aggregation").value === "sum" ? "1500" : 42;
      const event = { event_id: "evt_unique_123", customer_id: section.dataset.customer, event_name: field("event_name").value || "api.call", timestamp: new Date().toISOString().slice(0, 19) + "Z" };
      if (Object.keys(metadata).length) event.metadata = metadata;
      const body = JSON.stringify({ events: [event] }, null, 2).replaceAll("'", "'\\''");
      code.textContent = `curl ${section.dataset.ingest} \\\n  -H "Authorization: Bearer $METERBOOK_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '${body}'`;
    };
    form.addEventListener("input", sample);
    form.addEventListener("change", sample);
    draw();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
