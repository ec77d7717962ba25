// The market data session: docs/market-data.md, in JSON. Subscribes, resumes after a lost connection, checks the
// numbering of every topic, and asks again where something is missing.

import { type BookChange, type Level, type Side } from "./book.js";
import { type Bar } from "./chart.js";
import { Instrument } from "./instrument.js";
import { Latency, type Link, Socket } from "./socket.js";
import { type Trade } from "./tape.js";

export interface Tick {
    readonly symbol: string;
    readonly bid: string | null;
    readonly ask: string | null;
    readonly last: number | null;
    readonly stale: boolean;
}

export interface MarketEvents {
    instruments(found: readonly Instrument[]): void;
    tick(tick: Tick): void;
    trades(trades: readonly Trade[], snapshot: boolean): void;
    book(change: BookChange): void;
    bars(bars: readonly Bar[], snapshot: boolean): void;
    link(link: Link, detail: string): void;
    keyWanted(): void;
    failed(message: string): void;
}

type Channel = "ticks" | "trades" | "book" | "bars";

/** What a subscription asks for. */
interface Wish {
    readonly channel: Channel;
    readonly symbol: string;
    readonly interval?: string;
    readonly history?: number;
}

interface Topic extends Wish {
    epoch: number;
    seq: number | null;
}

interface Data {
    channel: Channel;
    symbol: string;
    interval?: string;
    epoch: number;
    seq: number;
    snapshot?: boolean;
    conflated?: boolean;
    gap?: boolean;
    count?: number;
    rows?: Record<string, unknown>[];
    bids?: [string, string][];
    asks?: [string, string][];
}

const HISTORY = { "1s": 1800, "1m": 1440 } as const;
const MILLISECOND = 1e6;
const SECOND = 1e9;

export class Market {
    private readonly socket: Socket;
    private readonly topics = new Map<string, Topic>();
    private instruments = new Map<string, Instrument>();
    private ready = false;
    readonly latency: Latency;

    constructor(url: () => string, private readonly key: () => string, private readonly events: MarketEvents) {
        this.socket = new Socket(url, {
            opened: () => undefined,
            received: (message) => this.received(message as Record<string, unknown>),
            changed: (link, reason) => {
                if (link !== "open") this.ready = false;
                this.events.link(link, reason);
            },
        });
        this.latency = new Latency(() => this.socket.send({ op: "ping" }));
    }

    connect(): void {
        this.socket.connect();
    }

    /** Subscribes to exactly this: chart, book and trades of `symbol`, ticks of it and of the `others`. */
    watch(symbol: string, interval: "1s" | "1m", others: Iterable<string>): void {
        const wishes: Wish[] = [
            { channel: "bars", symbol, interval, history: HISTORY[interval] },
            { channel: "book", symbol },
            { channel: "trades", symbol, history: 60 },
            ...[...new Set([symbol, ...others])].map((each) => ({ channel: "ticks", symbol: each }) as const),
        ];
        const wanted = new Set(wishes.map(name));
        for (const [key, topic] of this.topics) {
            if (wanted.has(key)) continue;
            this.topics.delete(key);
            if (this.ready) this.send("unsubscribe", topic);
        }
        for (const wish of wishes) {
            if (this.topics.has(name(wish))) continue;
            const topic = { ...wish, epoch: 0, seq: null };
            this.topics.set(name(wish), topic);
            if (this.ready) this.subscribe(topic);
        }
    }

    private received(message: Record<string, unknown>): void {
        if (typeof message["channel"] === "string" && message["op"] === undefined) {
            this.data(message as unknown as Data);
            return;
        }
        switch (message["op"]) {
            case "welcome": return this.welcome(message);
            case "authenticated": return this.start();
            case "resumed": return this.resumed(message);
            case "pong": return this.latency.answered();
            case "error": return this.refused(String(message["code"]), String(message["message"]));
        }
    }

    private welcome(message: Record<string, unknown>): void {
        const found = (message["symbols"] as Record<string, string>[]).map(
            (row) => new Instrument(row["symbol"] ?? "", row["tick_size"] ?? "", row["lot_size"] ?? ""),
        );
        this.instruments = new Map(found.map((each) => [each.symbol, each]));
        this.events.instruments(found);
        if (message["key_required"] !== true) this.start();
        else if (this.key() !== "") this.socket.send({ op: "auth", key: this.key() });
        else this.events.keyWanted();
    }

    private start(): void {
        this.ready = true;
        for (const topic of this.topics.values()) {
            if (topic.seq === null) this.subscribe(topic);
            else this.send("resume", topic);
        }
    }

    /** Where nothing was missed, what the page has is the present state again; else a snapshot follows. */
    private resumed(message: Record<string, unknown>): void {
        const symbols = Object.values(message["symbols"] as Record<string, { recovered: boolean }>);
        if (message["channel"] === "book" && symbols.every(({ recovered }) => recovered)) {
            this.events.book({ snapshot: false, gap: false, levels: { buy: [], sell: [] } });
        }
    }

    private refused(code: string, message: string): void {
        if (code === "key_required" || code === "bad_key") this.events.keyWanted();
        else if (code !== "not_subscribed") this.events.failed(message);
    }

    private subscribe(topic: Topic): void {
        topic.seq = null;
        this.send("subscribe", topic);
    }

    private send(op: string, { channel, symbol, interval, history, epoch, seq }: Topic): void {
        const bars = interval === undefined ? {} : { interval };
        if (op === "resume") this.socket.send({ op, channel, epoch, symbols: { [symbol]: seq }, ...bars });
        else if (op === "unsubscribe") this.socket.send({ op, channel, symbols: [symbol], ...bars });
        else this.socket.send({ op, channel, symbols: [symbol], ...bars, ...(history === undefined ? {} : { history }) });
    }

    private data(message: Data): void {
        const topic = this.topics.get(name(message));
        const instrument = this.instruments.get(message.symbol);
        if (topic === undefined || instrument === undefined) return; // the tail of what was unsubscribed
        const count = message.count ?? message.rows?.length ?? 0;
        const whole = message.snapshot === true;
        if (!whole && topic.seq === null) return; // older than the snapshot that is on its way
        if (!whole && message.conflated !== true && message.seq - count !== topic.seq) {
            this.subscribe(topic);
            if (topic.channel === "book") this.events.book({ snapshot: false, gap: true, levels: { buy: [], sell: [] } });
            return;
        }
        topic.seq = message.seq;
        topic.epoch = message.epoch;
        this.hand(message, instrument, whole);
    }

    private hand(message: Data, instrument: Instrument, snapshot: boolean): void {
        const rows = message.rows ?? [];
        switch (message.channel) {
            case "book": {
                const levels = (side: [string, string][] = []): Level[] =>
                    side.map(([price, quantity]) => [instrument.price.parse(price), instrument.quantity.parse(quantity)]);
                const sides = { buy: levels(message.bids), sell: levels(message.asks) };
                return this.events.book({ snapshot, gap: message.gap === true && !snapshot, levels: sides });
            }
            case "trades": return this.events.trades(rows.map((row) => readTrade(row, instrument)), snapshot);
            case "bars": return this.events.bars(rows.map((row) => readBar(row, instrument)), snapshot);
            case "ticks": {
                const last = rows.at(-1);
                if (last !== undefined) this.events.tick(readTick(message.symbol, last, instrument));
            }
        }
    }
}

function name({ channel, symbol, interval }: Pick<Wish, "channel" | "symbol" | "interval">): string {
    return `${channel} ${symbol} ${interval ?? ""}`;
}

function readTick(symbol: string, row: Record<string, unknown>, instrument: Instrument): Tick {
    const last = row["last_price"];
    return {
        symbol,
        bid: row["bid"] as string | null,
        ask: row["ask"] as string | null,
        last: typeof last === "string" ? instrument.price.parse(last) : null,
        stale: row["stale"] === true,
    };
}

function readTrade(row: Record<string, unknown>, instrument: Instrument): Trade {
    return {
        time: Number(row["time"]) / MILLISECOND,
        price: instrument.price.parse(String(row["price"])),
        quantity: instrument.quantity.parse(String(row["quantity"])),
        side: row["side"] as Side,
    };
}

function readBar(row: Record<string, unknown>, instrument: Instrument): Bar {
    const price = (field: string): number => instrument.price.parse(String(row[field]));
    return {
        start: Math.round(Number(row["start"]) / SECOND),
        open: price("open"),
        high: price("high"),
        low: price("low"),
        close: price("close"),
        volume: instrument.quantity.parse(String(row["volume"])),
    };
}
