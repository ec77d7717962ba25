// The trades tape: newest first.

import { type Side } from "./book.js";
import { grouped } from "./decimal.js";
import { byId, element, redraw, setText, timeOfDay } from "./dom.js";
import { type Instrument } from "./instrument.js";

/** A public trade: ms since the epoch, ticks, lots, side of the aggressor. */
export interface Trade {
    readonly time: number;
    readonly price: number;
    readonly quantity: number;
    readonly side: Side;
}

const ROWS = 60;

export class Tape {
    private trades: Trade[] = [];
    private instrument: Instrument | null = null;
    private readonly rows: { line: HTMLElement; cells: HTMLElement[] }[] = [];
    private readonly draw = (): void => this.render();

    constructor() {
        const box = byId("tape");
        for (let index = 0; index < ROWS; index++) {
            const cells = [element("span", { class: "price" }), element("span"), element("time")];
            const line = element("div", { class: "trade" }, ...cells);
            box.append(line);
            this.rows.push({ line, cells });
        }
    }

    show(instrument: Instrument): void {
        this.instrument = instrument;
        this.trades = [];
        redraw(this.draw);
    }

    /** Takes trades, oldest first; a snapshot replaces what is shown. */
    add(trades: readonly Trade[], snapshot: boolean): void {
        this.trades = [...trades.slice(-ROWS).reverse(), ...(snapshot ? [] : this.trades)].slice(0, ROWS);
        redraw(this.draw);
    }

    private render(): void {
        const { instrument } = this;
        if (instrument === null) return;
        this.rows.forEach(({ line, cells }, index) => {
            const trade = this.trades[index];
            line.hidden = trade === undefined;
            if (trade === undefined) return;
            line.dataset["side"] = trade.side;
            const texts = [
                grouped(instrument.price.format(trade.price)),
                instrument.quantity.format(trade.quantity),
                timeOfDay(trade.time),
            ];
            cells.forEach((cell, column) => setText(cell, texts[column] ?? ""));
        });
    }
}
