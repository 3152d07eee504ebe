// A tree of units as a list that a screen reader knows as a tree: one stop of Tab, arrows walk.

import { colourOf } from "./canvas.js";
import { count, element } from "./panels.js";

const MARKS = { done: "✓", open: "◐", "not-annotated": "○" };
const STATES = { done: "done", open: "open", "not-annotated": "not annotated" };

/** Shows units {id, class, parent, state, ...}, each after its whole; `on` has `choose` and `enter`. */
export class TreeView {
  constructor(list, on) {
    this.list = list;
    this.on = on;
    this.units = [];
    this.current = 0;
    this.closed = new Set();
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => this.#click(event));
  }

  show(units, current) {
    const hadFocus = this.list.contains(document.activeElement);
    this.units = units;
    this.current = current;
    for (let at = this.unit(current)?.parent; at !== null && at !== undefined; at = this.unit(at)?.parent) {
      this.closed.delete(at); // what is chosen is seen
    }
    this.#draw();
    if (hadFocus) this.focus();
  }

  unit(id) {
    return this.units.find((one) => one.id === id);
  }

  focus() {
    this.list.querySelector('[tabindex="0"]')?.focus();
  }

  #parts(id) {
    return this.units.filter((one) => one.parent === id);
  }

  /** Units that are not below a closed one, with their levels. */
  #open() {
    const levels = new Map();
    return this.units.filter((one) => {
      const above = one.parent === null ? 0 : levels.get(one.parent);
      if (above === undefined || this.closed.has(one.parent)) return false;
      levels.set(one.id, above + 1);
      one.level = above + 1;
      return true;
    });
  }

  #draw() {
    this.list.replaceChildren(
      ...this.#open().map((unit) => {
        const parts = this.#parts(unit.id);
        const siblings = unit.parent === null ? [unit] : this.#parts(unit.parent);
        const name = nameOf(unit);
        const is = hasParts(unit) ? STATES[unit.state] : "no parts known";
        const words = [name, is, parts.length ? count(parts.length, "part") : "", unit.stopped ? "finished there" : ""];
        const item = element(
          "li",
          {
            "aria-level": unit.level, "aria-posinset": siblings.indexOf(unit) + 1, "aria-setsize": siblings.length,
            "aria-selected": String(unit.id === this.current), "aria-label": words.filter(Boolean).join(", "),
            ...(parts.length ? { "aria-expanded": String(!this.closed.has(unit.id)) } : {}),
            tabIndex: unit.id === this.current ? 0 : -1,
          },
          element("span", { className: "twist", "aria-hidden": "true" }, parts.length ? (this.closed.has(unit.id) ? "▸" : "▾") : ""),
          unit.parent === null ? "" : swatch(unit.colour),
          element("span", { className: "name" }, name),
          element("span", { className: `state ${unit.state}`, "aria-hidden": "true", title: is },
            (unit.stopped ? "■ " : "") + (hasParts(unit) ? MARKS[unit.state] : "")),
        );
        item.setAttribute("role", "treeitem");
        item.dataset.unit = unit.id;
        item.style.setProperty("--level", unit.level - 1);
        return item;
      }),
    );
    this.list.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }

  #click(event) {
    const item = event.target.closest("li");
    if (!item) return;
    const id = Number(item.dataset.unit);
    if (event.target.closest(".twist") && this.#parts(id).length) this.#toggle(id);
    else this.on.choose(id);
    this.focus();
  }

  #toggle(id) {
    if (this.closed.has(id)) this.closed.delete(id);
    else this.closed.add(id);
    this.#draw();
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const open = this.#open();
    const at = open.findIndex((one) => one.id === this.current);
    const unit = open[at];
    if (!unit) return;
    const isOpen = this.#parts(unit.id).length && !this.closed.has(unit.id);
    const goal = {
      ArrowUp: () => open[at - 1], ArrowDown: () => open[at + 1], Home: () => open[0], End: () => open.at(-1),
      ArrowRight: () => (isOpen ? open[at + 1] : null),
      ArrowLeft: () => (isOpen ? null : this.unit(unit.parent)),
    }[event.key];
    if (event.key === "Enter") this.on.enter();
    else if (!goal) return;
    else {
      const next = goal();
      if (next) this.on.choose(next.id);
      else if (next === null && this.#parts(unit.id).length) this.#toggle(unit.id);
      this.focus();
    }
    event.preventDefault();
  }
}

/** What a unit is called: objects have numbers, as there are several. */
export function nameOf(unit) {
  if (unit.region) return `${unit.class} (region)`;
  return unit.object ? `${unit.class} ${unit.id}` : unit.class;
}

/** Whether anything can be asked of a unit. */
export function hasParts(unit) {
  return unit.region || unit.concepts.length > 0;
}

export function swatch(index) {
  const square = element("span", { className: "swatch", "aria-hidden": "true" });
  square.style.background = colourOf(index);
  return square;
}
