// The tables below the chart: open orders, order history, executions, positions.

import { grouped, trimmed } from "./decimal.js";
import { byId, redraw, setText, timeOfDay } from "./dom.js";
import { type Account, type Execution, type Order, type Position } from "./orders.js";
import { profit } from "./profit.js";
import { type Column, Table } from "./table.js";
import { type Instrument } from "./instrument.js";

const MOST_ROWS = 100;

/** What the blotter needs to know of the market: an instrument and its last price in ticks. */
export interface Marks {
    instrument(symbol: string): Instrument | undefined;
    last(symbol: string): number | null;
}

const title = (word: string): string => word.charAt(0).toUpperCase() + word.slice(1).replaceAll("_", " ");

const ORDER: readonly Column<Order>[] = [
    { title: "Time", text: (o) => timeOfDay(o.created), kind: "muted" },
    { title: "Symbol", text: (o) => o.symbol },
    { title: "Side", text: (o) => title(o.side), kind: "side" },
    { title: "Type", text: (o) => `${title(o.type)} ${o.timeInForce}${o.postOnly ? " · post" : ""}` },
    { title: "Price", text: (o) => (o.price === null ? "Market" : grouped(o.price)), kind: "number" },
    { title: "Quantity", text: (o) => o.quantity, kind: "number" },
    { title: "Filled", text: (o) => o.filled, kind: "number" },
];

const HISTORY: readonly Column<Order>[] = [
    ...ORDER,
    { title: "Average", text: (o) => (o.averagePrice === null ? "–" : grouped(o.averagePrice)), kind: "number" },
    { title: "Status", text: (o) => title(o.status) + (o.reason === "" ? "" : ` (${title(o.reason).toLowerCase()})`) },
];

const EXECUTION: readonly Column<Execution>[] = [
    { title: "Time", text: (e) => timeOfDay(e.time), kind: "muted" },
    { title: "Symbol", text: (e) => e.symbol },
    { title: "Side", text: (e) => title(e.side), kind: "side" },
    { title: "Price", text: (e) => grouped(e.price), kind: "number" },
    { title: "Quantity", text: (e) => e.quantity, kind: "number" },
    { title: "Liquidity", text: (e) => title(e.liquidity) },
    { title: "Trade", text: (e) => e.id, kind: "muted" },
];

function positionColumns(marks: Marks): readonly Column<Position>[] {
    const unrealized = (p: Position): string => {
        const instrument = marks.instrument(p.symbol);
        const last = marks.last(p.symbol);
        return instrument === undefined || last === null ? "–" : grouped(profit(p, last, instrument));
    };
    const last = (p: Position): string => {
        const ticks = marks.last(p.symbol);
        const instrument = marks.instrument(p.symbol);
        return ticks === null || instrument === undefined ? "–" : grouped(instrument.price.format(ticks));
    };
    return [
        { title: "Symbol", text: (p) => p.symbol },
        { title: "Quantity", text: (p) => p.quantity, kind: "signed" },
        { title: "Average price", text: (p) => (p.averagePrice === null ? "–" : grouped(p.averagePrice)), kind: "number" },
        { title: "Last price", text: last, kind: "number" },
        { title: "Unrealised P&L", text: unrealized, kind: "signed" },
        { title: "Realised P&L", text: (p) => grouped(trimmed(p.realized, 2)), kind: "signed" },
    ];
}

export class Blotter {
    private readonly open: Table<Order>;
    private readonly history: Table<Order>;
    private readonly executions: Table<Execution>;
    private readonly positions: Table<Position>;
    private readonly draw = (): void => this.render();

    constructor(private readonly account: Account, marks: Marks, cancel: (order: Order) => void) {
        const action = { label: "Cancel", describe: (o: Order) => `Cancel order ${o.id}`, run: cancel };
        this.open = new Table(byId("tab-open"), ORDER, (o) => o.id, "No open orders", action);
        this.history = new Table(byId("tab-history"), HISTORY, (o) => o.id, "No orders yet");
        this.executions = new Table(byId("tab-executions"), EXECUTION, (e) => `${e.id} ${e.order}`, "No executions yet");
        this.positions = new Table(byId("tab-positions"), positionColumns(marks), (p) => p.symbol, "No positions");
        startTabs();
    }

    changed(): void {
        redraw(this.draw);
    }

    private render(): void {
        const open = this.account.open;
        const held = [...this.account.positions.values()].filter((p) => /[1-9]/.test(p.quantity + p.realized));
        this.open.show(open);
        this.history.show(this.account.ended.slice(0, MOST_ROWS));
        this.executions.show(this.account.executions.slice(0, MOST_ROWS));
        this.positions.show(held.sort((a, b) => a.symbol.localeCompare(b.symbol)));
        setText(byId("count-open"), open.length > 0 ? String(open.length) : "");
        setText(byId("count-positions"), held.length > 0 ? String(held.length) : "");
        byId<HTMLButtonElement>("cancel-all").disabled = open.length === 0;
    }
}

function startTabs(): void {
    const tabs = [...document.querySelectorAll<HTMLButtonElement>("[role=tab]")];
    const select = (chosen: HTMLButtonElement): void => {
        for (const tab of tabs) {
            tab.setAttribute("aria-selected", String(tab === chosen));
            tab.tabIndex = tab === chosen ? 0 : -1;
            byId(tab.getAttribute("aria-controls") ?? "").hidden = tab !== chosen;
        }
    };
    tabs.forEach((tab, index) => {
        tab.addEventListener("click", () => select(tab));
        tab.addEventListener("keydown", (event) => {
            const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
            const next = step === undefined ? undefined : tabs.at((index + step) % tabs.length);
            if (next === undefined) return;
            select(next);
            next.focus();
        });
    });
}
