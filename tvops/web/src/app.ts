// Puts the page together.

import { Blotter } from "./blotter.js";
import { Book } from "./book.js";
import { PriceChart } from "./chart.js";
import { byId, redraw } from "./dom.js";
import { type Config, fetchConfig, Gateway, Refusal } from "./gateway.js";
import { banner, Header } from "./header.js";
import { type Instrument } from "./instrument.js";
import { startKeys } from "./keys.js";
import { Ladder } from "./ladder.js";
import { Market, type Tick } from "./market.js";
import { Account, type Order, type OrderRequest } from "./orders.js";
import { apiKey, askForKey } from "./sign-in.js";
import { type Link } from "./socket.js";
import { Tape } from "./tape.js";
import { startTheme } from "./theme.js";
import { Ticket } from "./ticket.js";
import { toast } from "./toast.js";

type Interval = "1s" | "1m";
const SYMBOL = "tvops.symbol";
const STALE_AFTER = 10_000;

class App {
    private readonly account = new Account();
    private readonly book = new Book();
    private readonly chart = new PriceChart();
    private readonly tape = new Tape();
    private readonly ladder = new Ladder(this.book, (price) => this.ticket.take(price));
    private readonly ticket = new Ticket((order) => this.place(order));
    private readonly header = new Header((symbol) => this.select(symbol));
    private readonly blotter: Blotter;
    private readonly market: Market;
    private readonly gateway: Gateway;
    private readonly instruments = new Map<string, Instrument>();
    private readonly ticks = new Map<string, Tick>();
    private links: Record<"market" | "orders", [Link, string]> = { market: ["connecting", ""], orders: ["connecting", ""] };
    private selected = "";
    private interval: Interval = "1s";
    private heard = performance.now();

    constructor(config: Config) {
        this.header.configure(config);
        this.blotter = new Blotter(
            this.account,
            { instrument: (symbol) => this.instruments.get(symbol), last: (symbol) => this.ticks.get(symbol)?.last ?? null },
            (order) => void this.cancel(order),
        );
        this.market = new Market(() => marketUrl(config), apiKey, {
            instruments: (found) => this.learn(found),
            tick: (tick) => this.tick(tick),
            trades: (trades, snapshot) => this.tape.add(trades, snapshot),
            book: (change) => {
                if (this.book.take(change)) this.heard = performance.now();
                this.ladder.changed();
            },
            bars: (bars, snapshot) => {
                this.chart.take(bars, snapshot);
                this.header.change(this.chart.first ?? 0);
            },
            link: (link, detail) => this.linked("market", link, detail),
            keyWanted: askForKey,
            failed: (message) => toast("Market data", message, "bad"),
        });
        this.gateway = new Gateway(this.account, apiKey, config.keys_required, {
            changed: () => this.accountChanged(),
            filled: (e) => toast(`${e.side === "buy" ? "Bought" : "Sold"} ${e.quantity} ${e.symbol}`, `at ${e.price}`, "good"),
            link: (link, detail) => this.linked("orders", link, detail),
            keyWanted: askForKey,
            failed: (title, detail) => toast(title, detail, "bad"),
        });
        this.startControls();
        this.blotter.changed();
        this.market.connect();
        this.gateway.connect();
        setInterval(() => this.watch(), 1000);
    }

    private startControls(): void {
        startTheme(() => this.chart.paint());
        startKeys(this.ticket, (interval) => this.choose(interval));
        for (const button of intervalButtons()) {
            button.addEventListener("click", () => this.choose(button.dataset["interval"] as Interval));
        }
        byId("cancel-all").addEventListener("click", () => void this.cancelAll());
    }

    private learn(found: readonly Instrument[]): void {
        for (const each of found) this.instruments.set(each.symbol, each);
        const symbols = found.map((each) => each.symbol);
        const stored = this.selected || localStorage.getItem(SYMBOL) || "";
        const symbol = symbols.includes(stored) ? stored : symbols[0];
        if (symbol === undefined) return banner("The market data service carries no symbols");
        this.header.symbols(symbols, symbol);
        if (symbol !== this.selected) this.select(symbol);
        this.blotter.changed();
    }

    private select(symbol: string): void {
        const instrument = this.instruments.get(symbol);
        if (instrument === undefined) return;
        this.selected = symbol;
        localStorage.setItem(SYMBOL, symbol);
        this.book.clear("waiting");
        for (const part of [this.header, this.ladder, this.tape, this.ticket, this.chart]) part.show(instrument);
        this.heard = performance.now();
        this.subscribe();
        this.markOwn();
    }

    private choose(interval: Interval): void {
        const instrument = this.instruments.get(this.selected);
        if (interval === this.interval || instrument === undefined) return;
        this.interval = interval;
        for (const button of intervalButtons()) {
            button.setAttribute("aria-pressed", String(button.dataset["interval"] === interval));
        }
        this.chart.show(instrument);
        this.markOwn();
        this.subscribe();
    }

    private subscribe(): void {
        if (this.selected !== "") this.market.watch(this.selected, this.interval, this.account.positions.keys());
    }

    private tick(tick: Tick): void {
        this.ticks.set(tick.symbol, tick);
        this.blotter.changed();
        const instrument = this.instruments.get(this.selected);
        if (tick.symbol !== this.selected || instrument === undefined) return;
        this.heard = performance.now();
        this.header.tick(tick, instrument);
        if (tick.bid !== null) this.ticket.suggest(tick.bid);
    }

    private accountChanged(): void {
        this.blotter.changed();
        redraw(this.markOwn);
        this.subscribe();
    }

    /** Marks the user's open orders in the ladder and on the chart. */
    private readonly markOwn = (): void => {
        const instrument = this.instruments.get(this.selected);
        if (instrument === undefined) return;
        const open = this.account.open.filter((order) => order.symbol === this.selected && order.price !== null);
        this.ladder.mark(open);
        this.chart.mark(open);
    };

    private async place(order: OrderRequest): Promise<"answered" | "unanswered"> {
        const what = `${order.side === "buy" ? "Buy" : "Sell"} ${order.quantity} ${order.symbol}`;
        try {
            const placed = await this.gateway.place(order);
            toast(`${what}: ${placed.status.replaceAll("_", " ")}`, describe(placed), placed.status === "cancelled" ? "plain" : "good");
            return "answered";
        } catch (error) {
            if (error instanceof Refusal && error.status < 500) {
                toast(error.title, error.message, "bad");
                return "answered";
            }
            const reason = error instanceof Error ? error.message : String(error);
            toast(`${what}: no answer`, `${reason}. Send it again: the same order never counts twice.`, "bad");
            return "unanswered";
        }
    }

    private async cancel(order: Order): Promise<void> {
        await told("The order was not cancelled", () => this.gateway.cancel(order.id));
    }

    private async cancelAll(): Promise<void> {
        await told("The orders were not cancelled", async () => {
            const count = await this.gateway.cancelAll();
            toast(`${count} ${count === 1 ? "order" : "orders"} cancelled`);
        });
    }

    private linked(which: "market" | "orders", link: Link, detail: string): void {
        this.links[which] = [link, detail];
        if (which === "market" && link === "lost") {
            this.book.lose();
            this.ladder.changed();
        }
        this.watch();
    }

    /** Looks after what the header says of connections and data. */
    private watch(): void {
        const stale = this.ticks.get(this.selected)?.stale === true;
        const silent = performance.now() - this.heard;
        const [market, reason] = this.links.market;
        const [orders, refusal] = this.links.orders;
        const quiet = market === "open" && (stale || silent > STALE_AFTER);
        this.header.link("market", quiet ? "stale" : market, reason, this.market.latency.value);
        this.header.link("orders", orders, refusal, this.gateway.latency.value);
        if (market === "lost") banner(`Market data is not connected${reason ? ` (${reason})` : ""}: prices are old. Trying again.`);
        else if (stale) banner("The feed has a gap: prices are the last known ones.");
        else if (quiet) banner(`No market data for ${Math.round(silent / 1000)} s: prices may be old.`);
        else if (orders === "lost") banner(`The order gateway is not connected${refusal ? ` (${refusal})` : ""}. Trying again.`);
        else if (market === "open") banner("");
    }
}

async function told(title: string, action: () => Promise<void>): Promise<void> {
    try {
        await action();
    } catch (error) {
        toast(title, error instanceof Error ? error.message : String(error), "bad");
    }
}

function describe(order: Order): string {
    if (order.averagePrice !== null) return `${order.filled} at ${order.averagePrice}`;
    if (order.reason !== "") return order.reason.replaceAll("_", " ");
    return order.price === null ? "" : `at ${order.price}`;
}

function intervalButtons(): HTMLButtonElement[] {
    return [...document.querySelectorAll<HTMLButtonElement>("[data-interval]")];
}

function marketUrl(config: Config): string {
    return `${location.protocol === "https:" ? "wss" : "ws"}://${location.hostname}:${config.market_port}/ws`;
}

async function start(): Promise<void> {
    try {
        const config = await fetchConfig();
        banner("");
        new App(config);
    } catch (error) {
        banner(`The gateway cannot be reached: ${error instanceof Error ? error.message : String(error)}. Trying again.`);
        setTimeout(() => void start(), 2000);
    }
}

void start();
