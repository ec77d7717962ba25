// The order book of one instrument, kept from a snapshot and numbered updates.

export type Side = "buy" | "sell";

/** Price in ticks, quantity in lots. */
export type Level = readonly [price: number, quantity: number];

/** A snapshot, an update (a quantity of 0 removes a level), or word that the book is not valid. */
export interface BookChange {
    readonly snapshot: boolean;
    readonly gap: boolean;
    readonly levels: Record<Side, Level[]>;
}

/** What the page may say about a book's fitness. */
export type BookState = "waiting" | "live" | "gap" | "lost";

export class Book {
    private readonly sides = { buy: new Map<number, number>(), sell: new Map<number, number>() };
    private fitness: Exclude<BookState, "lost"> = "waiting";
    private connected = true;

    get state(): BookState {
        return this.connected ? this.fitness : "lost";
    }

    /** Empties the book, until a snapshot comes. */
    clear(fitness: Exclude<BookState, "lost">): void {
        this.sides.buy.clear();
        this.sides.sell.clear();
        this.fitness = fitness;
    }

    /** The connection is gone: what is here is old until the next message. */
    lose(): void {
        this.connected = false;
    }

    /** Takes a message of the book channel; tells whether the book is valid afterwards. */
    take(change: BookChange): boolean {
        this.connected = true;
        if (change.gap || change.snapshot) this.clear(change.gap ? "gap" : "live");
        this.apply("buy", change.levels.buy);
        this.apply("sell", change.levels.sell);
        return this.state === "live";
    }

    private apply(side: Side, levels: readonly Level[]): void {
        const book = this.sides[side];
        for (const [price, quantity] of levels) {
            if (quantity === 0) book.delete(price);
            else book.set(price, quantity);
        }
    }

    /** Gives up to `most` levels, best first, prices gathered into steps of `step` ticks (away from the spread). */
    levels(side: Side, most: number, step: number): Level[] {
        const prices = [...this.sides[side].keys()].sort(side === "buy" ? (a, b) => b - a : (a, b) => a - b);
        const found: [number, number][] = [];
        for (const price of prices) {
            const shown = gathered(side, price, step);
            const quantity = this.sides[side].get(price) ?? 0;
            const last = found.at(-1);
            if (last?.[0] === shown) last[1] += quantity;
            else if (found.length === most) break;
            else found.push([shown, quantity]);
        }
        return found;
    }

    /** Gives the best price of a side in ticks, or null. */
    best(side: Side): number | null {
        return this.levels(side, 1, 1)[0]?.[0] ?? null;
    }
}

/** Gives the price that a level is shown at when prices are gathered into steps: away from the spread. */
export function gathered(side: Side, price: number, step: number): number {
    return (side === "buy" ? Math.floor(price / step) : Math.ceil(price / step)) * step;
}
