// The order book ladder: asks above, bids below, the spread between; bars show the depth up to each level.

import { type Book, type BookState, gathered, type Level, type Side } from "./book.js";
import { grouped } from "./decimal.js";
import { byId, element, redraw, setText } from "./dom.js";
import { type Instrument } from "./instrument.js";
import { type Order } from "./orders.js";

const ROW_HEIGHT = 20;
const MOST_ROWS = 40;
const NOTICES: Record<BookState, string> = {
    waiting: "Waiting for the book",
    live: "",
    gap: "Gap in the feed: resynchronising",
    lost: "Not connected",
};
const STEPS = [1, 10, 100, 1000, 10_000];

interface Row {
    readonly line: HTMLElement;
    readonly price: HTMLElement;
    readonly quantity: HTMLElement;
    readonly total: HTMLElement;
    ticks: number | null;
}

export class Ladder {
    private readonly rows: Record<Side, Row[]> = { buy: [], sell: [] };
    private readonly step = byId<HTMLSelectElement>("book-step");
    private instrument: Instrument | null = null;
    private own: readonly Order[] = [];
    private visible = 10;
    private readonly draw = (): void => this.render();

    constructor(private readonly book: Book, picked: (price: string) => void) {
        for (const side of ["sell", "buy"] as const) {
            const box = byId(`book-${side}`);
            for (let index = 0; index < MOST_ROWS; index++) this.rows[side].push(makeRow(box));
            box.addEventListener("click", (event) => {
                const line = (event.target as Element).closest(".level");
                const row = this.rows[side].find((each) => each.line === line);
                if (row?.ticks != null && this.instrument) picked(this.instrument.price.format(row.ticks));
            });
        }
        this.step.addEventListener("change", this.draw);
        new ResizeObserver(() => this.measure()).observe(byId("book"));
    }

    show(instrument: Instrument): void {
        this.instrument = instrument;
        const options = STEPS.map((step) => element("option", { value: String(step) }, instrument.price.format(step)));
        this.step.replaceChildren(...options);
        this.changed();
    }

    /** Marks the user's open limit orders. */
    mark(own: readonly Order[]): void {
        this.own = own;
        this.changed();
    }

    changed(): void {
        redraw(this.draw);
    }

    private measure(): void {
        const free = byId("book").clientHeight - byId("spread").offsetHeight;
        this.visible = Math.max(4, Math.min(MOST_ROWS, Math.floor(free / 2 / ROW_HEIGHT)));
        this.changed();
    }

    private render(): void {
        const { instrument, book } = this;
        if (instrument === null) return;
        const step = Number(this.step.value);
        const bids = book.levels("buy", this.visible, step);
        const asks = book.levels("sell", this.visible, step);
        const deepest = Math.max(depth(bids), depth(asks), 1);
        this.fill("buy", bids, deepest, step);
        this.fill("sell", asks, deepest, step);
        this.spread();
        setText(byId("book-notice"), NOTICES[book.state]);
        byId("book-panel").dataset["state"] = book.state;
    }

    private fill(side: Side, levels: readonly Level[], deepest: number, step: number): void {
        const { instrument } = this;
        if (instrument === null) return;
        let total = 0;
        this.rows[side].forEach((row, index) => {
            const level = levels[index];
            row.line.hidden = index >= this.visible;
            row.ticks = level?.[0] ?? null;
            if (level === undefined) {
                row.line.style.setProperty("--fill", "0%");
                for (const cell of [row.price, row.quantity, row.total]) setText(cell, "");
                delete row.line.dataset["own"];
                return;
            }
            total += level[1];
            setText(row.price, grouped(instrument.price.format(level[0])));
            setText(row.quantity, instrument.quantity.format(level[1]));
            setText(row.total, instrument.quantity.format(total));
            row.line.style.setProperty("--fill", `${((total / deepest) * 100).toFixed(1)}%`);
            this.markRow(row, side, level[0], step);
        });
    }

    private markRow(row: Row, side: Side, price: number, step: number): void {
        const { instrument } = this;
        const mine = this.own.filter((order) => {
            if (instrument === null || order.side !== side || order.price === null) return false;
            return gathered(side, instrument.price.parse(order.price), step) === price;
        });
        if (mine.length > 0) row.line.dataset["own"] = mine.map((order) => order.remaining).join(" + ");
        else delete row.line.dataset["own"];
        row.line.title = mine.length > 0 ? `Yours: ${row.line.dataset["own"]}` : "";
    }

    private spread(): void {
        const { instrument, book } = this;
        const bid = book.best("buy");
        const ask = book.best("sell");
        if (instrument === null || bid === null || ask === null) {
            setText(byId("spread-value"), "–");
            setText(byId("spread-bps"), "");
            return;
        }
        setText(byId("spread-value"), instrument.price.format(ask - bid));
        setText(byId("spread-bps"), `${(((ask - bid) / ((ask + bid) / 2)) * 10_000).toFixed(2)} bps`);
    }
}

function depth(levels: readonly Level[]): number {
    return levels.reduce((sum, level) => sum + level[1], 0);
}

function makeRow(box: HTMLElement): Row {
    const [price, quantity, total] = [element("span", { class: "price" }), element("span"), element("span", { class: "total" })];
    const line = element("div", { class: "level" }, price, quantity, total);
    box.append(line);
    return { line, price, quantity, total, ticks: null };
}
