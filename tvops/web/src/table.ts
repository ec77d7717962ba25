// A keyed table: rows keep their elements, and only cells whose text changed are written.

import { element, setText } from "./dom.js";

export interface Column<T> {
    readonly title: string;
    readonly text: (item: T) => string;
    readonly kind?: "number" | "side" | "name" | "signed" | "muted";
}

export interface Action<T> {
    readonly label: string;
    readonly describe: (item: T) => string;
    readonly run: (item: T) => void;
}

interface Row<T> {
    readonly line: HTMLTableRowElement;
    readonly cells: HTMLTableCellElement[];
    item: T;
}

export class Table<T> {
    private readonly body = element("tbody");
    private readonly rows = new Map<string, Row<T>>();
    private readonly empty: HTMLElement;

    constructor(
        box: HTMLElement,
        private readonly columns: readonly Column<T>[],
        private readonly key: (item: T) => string,
        nothing: string,
        private readonly action?: Action<T>,
    ) {
        const titles = columns.map(({ title, kind = "name" }) => element("th", { class: kind, scope: "col" }, title));
        if (action) titles.push(element("th", { class: "act" }));
        this.empty = element("p", { class: "nothing" }, nothing);
        box.append(element("table", {}, element("thead", {}, element("tr", {}, ...titles)), this.body), this.empty);
    }

    show(items: readonly T[]): void {
        const keys = new Set(items.map(this.key));
        for (const [key, row] of this.rows) {
            if (keys.has(key)) continue;
            row.line.remove();
            this.rows.delete(key);
        }
        let place: Element | null = this.body.firstElementChild;
        for (const item of items) {
            const row = this.row(item);
            if (row.line === place) place = place.nextElementSibling;
            else this.body.insertBefore(row.line, place);
        }
        this.empty.hidden = items.length > 0;
    }

    private row(item: T): Row<T> {
        const key = this.key(item);
        const row = this.rows.get(key) ?? this.make(key, item);
        row.item = item;
        this.columns.forEach(({ text, kind }, index) => {
            const cell = row.cells[index];
            const written = text(item);
            if (cell === undefined) return;
            setText(cell, written);
            if (kind === "side" || kind === "signed") cell.dataset["tone"] = tone(kind, written);
        });
        return row;
    }

    private make(key: string, item: T): Row<T> {
        const cells = this.columns.map(({ kind = "name" }) => element("td", { class: kind }));
        const line = element("tr", { "data-key": key }, ...cells);
        const row = { line, cells, item };
        const { action } = this;
        if (action) {
            const run = (): void => action.run(row.item);
            const button = element("button", { type: "button", "aria-label": action.describe(item), onclick: run }, action.label);
            line.append(element("td", { class: "act" }, button));
        }
        this.rows.set(key, row);
        return row;
    }
}

function tone(kind: "side" | "signed", text: string): string {
    if (kind === "side") return text === "Buy" ? "up" : "down";
    if (!/[1-9]/.test(text)) return "flat";
    return text.startsWith("-") ? "down" : "up";
}
