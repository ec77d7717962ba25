// What the gateway tells about the user's account, and the account's state on the page.

import { type Side } from "./book.js";

/** An order as it stands: prices and quantities are decimal strings. */
export interface Order {
    readonly id: string;
    readonly symbol: string;
    readonly side: Side;
    readonly type: "limit" | "market";
    readonly timeInForce: string;
    readonly postOnly: boolean;
    readonly price: string | null;
    readonly quantity: string;
    readonly filled: string;
    readonly remaining: string;
    readonly averagePrice: string | null;
    readonly status: string;
    readonly reason: string;
    readonly created: number;
}

export interface Execution {
    readonly id: string;
    readonly order: string;
    readonly symbol: string;
    readonly side: Side;
    readonly price: string;
    readonly quantity: string;
    readonly liquidity: string;
    readonly time: number;
}

export interface Position {
    readonly symbol: string;
    readonly quantity: string;
    readonly averagePrice: string | null;
    readonly realized: string;
}

/** What is sent for a new order. */
export interface OrderRequest {
    readonly symbol: string;
    readonly side: Side;
    readonly order_type: Order["type"];
    readonly quantity: string;
    readonly price?: string;
    readonly time_in_force?: string;
    readonly post_only?: boolean;
    readonly client_order_id: string;
}

const OPEN = new Set(["open", "partially_filled"]);
const MOST = 500;

/** The account: orders, executions and positions. */
export class Account {
    readonly orders = new Map<string, Order>();
    readonly positions = new Map<string, Position>();
    private readonly fills = new Map<string, Execution>();

    /** Orders that still stand in the book, newest first. */
    get open(): Order[] {
        return this.sorted().filter((order) => OPEN.has(order.status));
    }

    /** Orders that have ended, newest first. */
    get ended(): Order[] {
        return this.sorted().filter((order) => !OPEN.has(order.status));
    }

    /** Executions, newest first. */
    get executions(): Execution[] {
        return [...this.fills.values()].sort((a, b) => b.time - a.time);
    }

    keep(order: Order): void {
        this.orders.set(order.id, order);
        if (this.orders.size <= MOST * 2) return;
        for (const old of this.ended.slice(MOST)) this.orders.delete(old.id);
    }

    fill(execution: Execution): void {
        this.fills.set(`${execution.id} ${execution.order}`, execution);
        if (this.fills.size <= MOST * 2) return;
        for (const old of this.executions.slice(MOST)) this.fills.delete(`${old.id} ${old.order}`);
    }

    clear(): void {
        this.orders.clear();
        this.fills.clear();
        this.positions.clear();
    }

    private sorted(): Order[] {
        return [...this.orders.values()].sort((a, b) => b.created - a.created);
    }
}
