// The order ticket. What is sent are the decimal strings themselves, checked against the instrument's steps.

import { type Side } from "./book.js";
import { grouped, trimmed } from "./decimal.js";
import { byId, setText } from "./dom.js";
import { type Instrument } from "./instrument.js";
import { type OrderRequest } from "./orders.js";

/** Sends an order; tells whether an answer came, so that the same order can be sent again where none did. */
export type Place = (order: OrderRequest) => Promise<"answered" | "unanswered">;

export class Ticket {
    private readonly form = byId<HTMLFormElement>("ticket");
    private readonly quantity = byId<HTMLInputElement>("quantity");
    private readonly price = byId<HTMLInputElement>("price");
    private readonly timeInForce = byId<HTMLSelectElement>("time-in-force");
    private readonly postOnly = byId<HTMLInputElement>("post-only");
    private readonly submit = byId<HTMLButtonElement>("submit");
    private instrument: Instrument | null = null;
    private unanswered: OrderRequest | null = null;

    constructor(private readonly place: Place) {
        this.form.addEventListener("submit", (event) => {
            event.preventDefault();
            void this.send();
        });
        this.form.addEventListener("input", () => this.refresh());
        for (const input of [this.quantity, this.price]) {
            input.addEventListener("keydown", (event) => this.nudge(input, event));
        }
    }

    show(instrument: Instrument): void {
        this.instrument = instrument;
        this.price.value = "";
        this.price.placeholder = instrument.price.text;
        this.quantity.placeholder = instrument.quantity.text;
        setText(byId("quantity-unit"), instrument.base);
        setText(byId("price-unit"), instrument.quote);
        this.refresh();
    }

    /** Puts a price from the book into the ticket. */
    take(price: string): void {
        this.choose("order-type", "limit");
        this.price.value = price;
        this.refresh();
        this.quantity.focus();
    }

    /** Fills the price in once, where the user has not yet written one. */
    suggest(price: string): void {
        if (this.price.value !== "" || document.activeElement === this.price) return;
        this.price.value = price;
        this.refresh();
    }

    /** Chooses the side and goes to the quantity. */
    start(side: Side): void {
        this.choose("side", side);
        this.refresh();
        this.quantity.focus();
        this.quantity.select();
    }

    private choose(name: string, value: string): void {
        const radio = this.form.querySelector<HTMLInputElement>(`input[name="${name}"][value="${value}"]`);
        if (radio !== null) radio.checked = true;
    }

    private chosen(name: string): string {
        return this.form.querySelector<HTMLInputElement>(`input[name="${name}"]:checked`)?.value ?? "";
    }

    private refresh(): void {
        const { instrument } = this;
        if (instrument === null) return;
        const [side, type] = [this.chosen("side"), this.chosen("order-type")];
        const market = type === "market";
        const resting = this.timeInForce.value === "GTC";
        byId("price-field").hidden = market;
        byId("resting-fields").hidden = market;
        this.postOnly.disabled = market || !resting;
        if (this.postOnly.disabled) this.postOnly.checked = false;
        this.form.dataset["side"] = side;
        setText(this.submit, `${side === "buy" ? "Buy" : "Sell"} ${instrument.base}`);
        setText(byId("ticket-value"), this.value(instrument, market));
        for (const input of [this.quantity, this.price]) input.setCustomValidity("");
    }

    /** Writes price x quantity where both stand there. */
    private value(instrument: Instrument, market: boolean): string {
        if (market) return "at the market";
        try {
            const product = BigInt(instrument.price.parse(this.price.value)) * BigInt(instrument.quantity.parse(this.quantity.value));
            return `${grouped(trimmed(instrument.notional(product), 2))} ${instrument.quote}`;
        } catch {
            return "–"; // not complete yet; what is wrong is said when it is sent
        }
    }

    private async send(): Promise<void> {
        const order = this.read();
        if (order === null) return;
        this.submit.disabled = true;
        this.unanswered = (await this.place(order)) === "unanswered" ? order : null;
        this.submit.disabled = false;
    }

    private read(): OrderRequest | null {
        const { instrument } = this;
        if (instrument === null) return null;
        const market = this.chosen("order-type") === "market";
        if (!checked(this.quantity, (text) => instrument.quantity.parse(text))) return null;
        if (!market && !checked(this.price, (text) => instrument.price.parse(text))) return null;
        const wanted = {
            symbol: instrument.symbol,
            side: this.chosen("side") as Side,
            order_type: market ? "market" : "limit",
            quantity: this.quantity.value.trim(),
            ...(market ? {} : { price: this.price.value.trim(), time_in_force: this.timeInForce.value }),
            ...(!market && this.postOnly.checked ? { post_only: true } : {}),
        } as const;
        const again = this.unanswered !== null && sameOrder(this.unanswered, wanted) ? this.unanswered : null;
        return again ?? { ...wanted, client_order_id: newId() };
    }

    private nudge(input: HTMLInputElement, event: KeyboardEvent): void {
        const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
        if (direction === undefined || this.instrument === null) return;
        event.preventDefault();
        const step = input === this.price ? this.instrument.price : this.instrument.quantity;
        try {
            const steps = input.value.trim() === "" ? 0 : step.parse(input.value);
            input.value = step.format(Math.max(1, steps + direction * (event.shiftKey ? 100 : 1)));
            this.refresh();
        } catch {
            input.reportValidity(); // not a number that could be counted up
        }
    }
}

/** Tells whether a field holds what it should; where not, the browser shows why, at the field. */
function checked(input: HTMLInputElement, parse: (text: string) => number): boolean {
    try {
        const steps = parse(input.value);
        input.setCustomValidity(steps > 0 ? "" : "Must be above 0");
    } catch (error) {
        input.setCustomValidity(error instanceof Error ? error.message : String(error));
    }
    return input.reportValidity();
}

/** Makes a random id; crypto.randomUUID alone is missing on pages that come over plain HTTP from another host. */
function newId(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sameOrder(sent: OrderRequest, wanted: Omit<OrderRequest, "client_order_id">): boolean {
    const { client_order_id: _, ...rest } = sent;
    return JSON.stringify(rest) === JSON.stringify(wanted);
}
