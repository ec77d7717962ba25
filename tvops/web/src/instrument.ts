// What the page knows of an instrument.

import { formatScaled, Step } from "./decimal.js";

/** One tradable thing: its steps, and how to write products of both. */
export class Instrument {
    readonly price: Step;
    readonly quantity: Step;
    readonly base: string;
    readonly quote: string;

    constructor(readonly symbol: string, tickSize: string, lotSize: string) {
        this.price = new Step("price", tickSize);
        this.quantity = new Step("quantity", lotSize);
        const [base = symbol, quote = ""] = symbol.split("-");
        this.base = base;
        this.quote = quote;
    }

    /** Writes ticks x lots as a decimal string in the quote currency. */
    notional(product: bigint): string {
        return formatScaled(
            product * this.price.units * this.quantity.units,
            this.price.places + this.quantity.places,
        );
    }
}
