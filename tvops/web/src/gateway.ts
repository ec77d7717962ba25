// The order session: docs/gateway.md. Requests and the private stream go over one WebSocket; history comes over REST.

import { Latency, type Link, Socket } from "./socket.js";
import { type Account, type Execution, type Order, type OrderRequest, type Position } from "./orders.js";

/** What the page needs to know of the stack (`GET /v1/config`). */
export interface Config {
    readonly version: string;
    readonly market_port: number;
    readonly feed: string;
    readonly simulated: boolean;
    readonly keys_required: boolean;
    readonly symbols: readonly string[];
}

export interface GatewayEvents {
    /** The account's state changed. */
    changed(): void;
    /** An own order that stood in the book was traded with. */
    filled(execution: Execution): void;
    link(link: Link, detail: string): void;
    keyWanted(): void;
    failed(title: string, detail: string): void;
}

/** A request that the gateway refused; the message is the problem's detail. */
export class Refusal extends Error {
    constructor(readonly title: string, detail: string, readonly status: number) {
        super(detail);
    }
}

/** A request without an answer: the connection went away, or time ran out. */
export class Unanswered extends Error {}

type Wire = Record<string, unknown>;

interface Waiting {
    readonly resolve: (answer: Wire) => void;
    readonly reject: (error: Error) => void;
    readonly timer: number;
}

const PATIENCE = 10_000;
const LISTED = 200;

export class Gateway {
    private readonly socket: Socket;
    private readonly waiting = new Map<number, Waiting>();
    private readonly openings = new Set<() => void>();
    private next = 1;
    private epoch: string | null = null;
    private seq = 0;
    private ready = false;
    readonly latency: Latency;

    constructor(
        private readonly account: Account,
        private readonly key: () => string,
        private readonly keysRequired: boolean,
        private readonly events: GatewayEvents,
    ) {
        this.socket = new Socket(webSocketUrl, {
            opened: () => void this.begin(),
            received: (message) => this.received(message as Wire),
            changed: (link, reason) => {
                if (link === "lost") this.drop();
                events.link(link, reason);
            },
        });
        this.latency = new Latency(() => this.socket.send({ op: "ping", id: 0 }));
    }

    connect(): void {
        this.socket.connect();
    }

    /** Signs in (where keys are required) and starts the private stream. */
    async begin(): Promise<void> {
        try {
            if (this.keysRequired) {
                if (this.key() === "") return this.events.keyWanted();
                await this.request({ op: "auth", key: this.key() });
            }
            this.subscribe();
            this.ready = true;
            for (const opened of this.openings) opened();
            this.openings.clear();
        } catch (error) {
            if (!(error instanceof Refusal)) return; // the connection was lost: it begins again on its own
            if (error.status === 401) this.events.keyWanted();
            this.events.failed(error.title, error.message);
        }
    }

    /** Places an order. Where no answer comes it is sent again: its client_order_id keeps it from counting twice. */
    async place(order: OrderRequest): Promise<Order> {
        for (let attempt = 1; ; attempt++) {
            try {
                await this.opened();
                return readOrder((await this.request({ op: "place", order }))["result"] as Wire);
            } catch (error) {
                if (!(error instanceof Unanswered) || attempt === 3) throw error;
            }
        }
    }

    async cancel(id: string): Promise<void> {
        await this.request({ op: "cancel", order_id: id });
    }

    /** Cancels every open order; gives how many those were. */
    async cancelAll(): Promise<number> {
        const answer = await this.request({ op: "mass_cancel" });
        return Number((answer["result"] as Wire)["cancelled"]);
    }

    private request(message: Wire): Promise<Wire> {
        const id = this.next++;
        return new Promise((resolve, reject) => {
            if (!this.socket.send({ ...message, id })) {
                reject(new Unanswered("The order gateway is not connected"));
                return;
            }
            const timer = window.setTimeout(() => {
                this.waiting.delete(id);
                reject(new Unanswered(`No answer within ${PATIENCE / 1000} s`));
            }, PATIENCE);
            this.waiting.set(id, { resolve, reject, timer });
        });
    }

    private opened(): Promise<void> {
        if (this.ready) return Promise.resolve();
        return new Promise((resolve, reject) => {
            const timer = setTimeout(() => {
                this.openings.delete(open);
                reject(new Unanswered("The order gateway is not connected"));
            }, PATIENCE);
            const open = (): void => {
                clearTimeout(timer);
                resolve();
            };
            this.openings.add(open);
        });
    }

    private drop(): void {
        this.ready = false;
        for (const { reject, timer } of this.waiting.values()) {
            clearTimeout(timer);
            reject(new Unanswered("The connection to the order gateway was lost"));
        }
        this.waiting.clear();
    }

    private received(message: Wire): void {
        if (message["op"] !== undefined) return this.answered(message);
        if (message["type"] === "snapshot") return this.snapshot(message);
        if (message["type"] === "resumed") return;
        const seq = Number(message["seq"]);
        if (seq !== this.seq + 1) return this.subscribe(); // numbered without a gap: what is missing is sent again
        this.seq = seq;
        switch (message["type"]) {
            case "order": this.account.keep(readOrder(message["order"] as Wire)); break;
            case "fill": this.fill(message); break;
            case "position": this.position(message["position"] as Wire); break;
        }
        this.events.changed();
    }

    private subscribe(): void {
        const from = this.epoch === null ? {} : { epoch: this.epoch, seq: this.seq };
        this.socket.send({ op: "subscribe", id: this.next++, ...from });
    }

    private answered(message: Wire): void {
        if (message["op"] === "ping") return this.latency.answered();
        const waiting = this.waiting.get(Number(message["id"]));
        const error = message["error"] as Wire | undefined;
        const refusal = error && new Refusal(String(error["title"]), String(error["detail"]), Number(error["status"]));
        if (waiting === undefined) {
            if (refusal) this.events.failed(refusal.title, refusal.message);
            return;
        }
        clearTimeout(waiting.timer);
        this.waiting.delete(Number(message["id"]));
        if (refusal) waiting.reject(refusal);
        else waiting.resolve(message);
    }

    private snapshot(message: Wire): void {
        this.epoch = String(message["epoch"]);
        this.seq = Number(message["seq"]);
        this.account.clear();
        for (const order of message["orders"] as Wire[]) this.account.keep(readOrder(order));
        for (const position of message["positions"] as Wire[]) this.position(position);
        this.events.changed();
        this.history().catch((error: unknown) => this.events.failed("The order history was not loaded", String(error)));
    }

    private fill(message: Wire): void {
        const execution = readExecution(message["fill"] as Wire);
        this.account.keep(readOrder(message["order"] as Wire));
        this.account.fill(execution);
        if (execution.liquidity === "maker") this.events.filled(execution);
    }

    private position(row: Wire): void {
        const position = readPosition(row);
        this.account.positions.set(position.symbol, position);
    }

    /** Fetches ended orders and past executions, which the private stream does not repeat. */
    private async history(): Promise<void> {
        const [orders, executions] = await Promise.all([
            this.get(`/v1/orders?limit=${LISTED}`), this.get(`/v1/executions?limit=${LISTED}`),
        ]);
        for (const row of orders["orders"] as Wire[]) {
            const order = readOrder(row);
            if (!this.account.orders.has(order.id)) this.account.keep(order); // the stream's word is newer
        }
        for (const row of executions["executions"] as Wire[]) this.account.fill(readExecution(row));
        this.events.changed();
    }

    private async get(path: string): Promise<Wire> {
        const headers: HeadersInit = this.key() === "" ? {} : { "X-API-Key": this.key() };
        const response = await fetch(path, { headers });
        const body = (await response.json()) as Wire;
        if (!response.ok) throw new Refusal(String(body["title"]), String(body["detail"]), response.status);
        return body;
    }
}

/** Fetches what the page needs to begin. */
export async function fetchConfig(): Promise<Config> {
    const response = await fetch("/v1/config");
    if (!response.ok) throw new Error(`The gateway answered ${response.status}`);
    return (await response.json()) as Config;
}

function webSocketUrl(): string {
    return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
}

function readOrder(row: Wire): Order {
    return {
        id: String(row["order_id"]),
        symbol: String(row["symbol"]),
        side: row["side"] as Order["side"],
        type: row["order_type"] as Order["type"],
        timeInForce: String(row["time_in_force"]),
        postOnly: row["post_only"] === true,
        price: row["price"] as string | null,
        quantity: String(row["quantity"]),
        filled: String(row["filled_quantity"]),
        remaining: String(row["open_quantity"]),
        averagePrice: row["average_price"] as string | null,
        status: String(row["status"]),
        reason: (row["reason"] as string | null) ?? "",
        created: Date.parse(String(row["created_at"])),
    };
}

function readExecution(row: Wire): Execution {
    return {
        id: String(row["trade_id"]),
        order: String(row["order_id"]),
        symbol: String(row["symbol"]),
        side: row["side"] as Execution["side"],
        price: String(row["price"]),
        quantity: String(row["quantity"]),
        liquidity: String(row["liquidity"]),
        time: Date.parse(String(row["time"])),
    };
}

function readPosition(row: Wire): Position {
    return {
        symbol: String(row["symbol"]),
        quantity: String(row["quantity"]),
        averagePrice: row["average_price"] as string | null,
        realized: String(row["realized"]),
    };
}
