// The header: last price, best prices, where data comes from, how the connections do.

import { grouped } from "./decimal.js";
import { byId, element, setText } from "./dom.js";
import { type Config } from "./gateway.js";
import { type Instrument } from "./instrument.js";
import { type Tick } from "./market.js";
import { type Link } from "./socket.js";

const WORDS: Record<Link | "stale", string> = { connecting: "…", open: "live", lost: "lost", stale: "stale" };

export class Header {
    private readonly symbol = byId<HTMLSelectElement>("symbol");
    private last: number | null = null;

    constructor(picked: (symbol: string) => void) {
        this.symbol.addEventListener("change", () => picked(this.symbol.value));
    }

    configure(config: Config): void {
        byId("simulated").hidden = !config.simulated;
        setText(byId("feed"), config.feed);
        byId("feed").title = `Market data: ${config.feed}; tvops ${config.version}`;
    }

    symbols(symbols: readonly string[], selected: string): void {
        this.symbol.replaceChildren(...symbols.map((each) => element("option", { value: each }, each)));
        this.symbol.value = selected;
    }

    show(instrument: Instrument): void {
        this.symbol.value = instrument.symbol;
        this.last = null;
        for (const id of ["last-price", "bid", "ask"]) setText(byId(id), "–");
        setText(byId("change"), "");
    }

    tick(tick: Tick, instrument: Instrument): void {
        setText(byId("bid"), tick.bid === null ? "–" : grouped(tick.bid));
        setText(byId("ask"), tick.ask === null ? "–" : grouped(tick.ask));
        if (tick.last === null) return;
        const text = instrument.price.format(tick.last);
        const output = byId("last-price");
        if (this.last !== null && this.last !== tick.last) output.dataset["tone"] = tick.last > this.last ? "up" : "down";
        this.last = tick.last;
        setText(output, grouped(text));
        document.title = `${grouped(text)} ${instrument.symbol} · tvops`;
    }

    /** Writes how far the last price is from the first one that the chart shows. */
    change(first: number): void {
        if (this.last === null || first === 0) return;
        const percent = ((this.last - first) / first) * 100;
        const node = byId("change");
        setText(node, `${percent >= 0 ? "+" : "−"}${Math.abs(percent).toFixed(2)} %`);
        node.dataset["tone"] = percent >= 0 ? "up" : "down";
    }

    link(which: "market" | "orders", link: Link | "stale", detail: string, latency: number | null): void {
        const node = byId(`${which}-link`);
        node.dataset["link"] = link;
        node.title = link === "open" ? "Connected; the figure is the round trip" : detail || WORDS[link];
        const shown = latency === null ? WORDS.open : latency < 10 ? `${latency.toFixed(1)} ms` : `${latency.toFixed(0)} ms`;
        const text = node.querySelector("b");
        if (text) setText(text, link === "open" ? shown : WORDS[link]);
    }
}

/** Shows one line across the page, or takes it away. */
export function banner(text: string): void {
    const node = byId("banner");
    setText(node, text);
    node.hidden = text === "";
}
