// The candlestick chart with its volume pane, the legend, and lines at the prices of the user's own orders.

import {
    CandlestickSeries, ColorType, createChart, CrosshairMode, HistogramSeries, type IChartApi, type IPriceLine,
    type ISeriesApi, LineStyle, type MouseEventParams, type Time, type UTCTimestamp,
} from "lightweight-charts";

import { byId, redraw, setText } from "./dom.js";
import { type Instrument } from "./instrument.js";
import { type Order } from "./orders.js";
import { colour } from "./theme.js";

/** A bar: start in s since the epoch, prices in ticks, volume in lots. */
export interface Bar {
    readonly start: number;
    readonly open: number;
    readonly high: number;
    readonly low: number;
    readonly close: number;
    readonly volume: number;
}

const MOST_BARS = 20_000;
const MOST_LINES = 20;
const local = new Intl.DateTimeFormat(undefined, {
    month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const seconds = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const days = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export class PriceChart {
    private readonly chart: IChartApi;
    private readonly candles: ISeriesApi<"Candlestick">;
    private readonly volumes: ISeriesApi<"Histogram">;
    private readonly lines: IPriceLine[] = [];
    private orders: readonly Order[] = [];
    private bars: Bar[] = [];
    private instrument: Instrument | null = null;
    private pointed: number | null = null;
    private soft = { up: "", down: "" };

    constructor() {
        this.chart = createChart(byId("chart"), {
            autoSize: true,
            layout: { attributionLogo: true, panes: { enableResize: true } },
            crosshair: { mode: CrosshairMode.Normal },
            rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.12, bottom: 0.06 } },
            timeScale: {
                borderVisible: false, timeVisible: true, secondsVisible: true, rightOffset: 6, barSpacing: 7,
                tickMarkFormatter: (time: Time, kind: number) =>
                    (kind <= 2 ? days : kind === 3 ? minutes : seconds).format(Number(time) * 1000),
            },
            localization: { timeFormatter: (time: Time) => local.format(Number(time) * 1000) },
        });
        this.candles = this.chart.addSeries(CandlestickSeries, {});
        this.volumes = this.chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceLineVisible: false }, 1);
        this.chart.panes()[0]?.setStretchFactor(4);
        this.chart.panes()[1]?.setStretchFactor(1);
        this.chart.subscribeCrosshairMove((event) => this.point(event));
    }

    /** Shows another instrument or interval: empty until `load`. */
    show(instrument: Instrument): void {
        this.instrument = instrument;
        const format = { type: "price", precision: instrument.price.places, minMove: instrument.price.float(1) } as const;
        this.candles.applyOptions({ priceFormat: format });
        this.load([]);
        this.chart.timeScale().resetTimeScale();
    }

    /** The first open price shown, in ticks. */
    get first(): number | undefined {
        return this.bars[0]?.open;
    }

    /** Takes bars, oldest first: in place of everything shown, or each as `update` does. */
    take(bars: readonly Bar[], snapshot: boolean): void {
        if (snapshot) this.load(bars);
        else for (const bar of bars) this.update(bar);
    }

    private load(bars: readonly Bar[]): void {
        this.bars = bars.slice(-MOST_BARS);
        this.candles.setData(this.bars.map((bar) => this.candle(bar)));
        this.volumes.setData(this.bars.map((bar) => this.volume(bar)));
        this.describe();
    }

    /** Takes one bar: the open one again, a new one, or a late correction. */
    private update(bar: Bar): void {
        const last = this.bars.at(-1);
        if (last !== undefined && bar.start < last.start) {
            const index = this.bars.findIndex((each) => each.start >= bar.start);
            this.bars.splice(index, this.bars[index]?.start === bar.start ? 1 : 0, bar);
            this.load(this.bars);
            return;
        }
        if (last?.start === bar.start) this.bars[this.bars.length - 1] = bar;
        else this.bars.push(bar);
        if (this.bars.length > MOST_BARS + 1000) this.load(this.bars);
        this.candles.update(this.candle(bar));
        this.volumes.update(this.volume(bar));
        redraw(this.describeLater);
    }

    /** Draws a line at each price where own orders stand. */
    mark(orders: readonly Order[]): void {
        this.orders = orders;
        for (const line of this.lines.splice(0)) this.candles.removePriceLine(line);
        const prices = new Map<string, Order[]>();
        for (const order of orders) prices.set(`${order.side} ${order.price}`, [...(prices.get(`${order.side} ${order.price}`) ?? []), order]);
        for (const [first, ...more] of [...prices.values()].slice(0, MOST_LINES)) {
            if (first === undefined) continue;
            this.lines.push(this.candles.createPriceLine({
                price: Number(first.price),
                title: more.length === 0 ? `${first.side} ${first.remaining}` : `${first.side} ×${more.length + 1}`,
                lineWidth: 1, lineStyle: LineStyle.Dashed, axisLabelVisible: true,
                color: colour(first.side === "buy" ? "--up" : "--down"),
            }));
        }
    }

    /** Takes over the page's colours. */
    paint(): void {
        const [up, down, grid, text] = [colour("--up"), colour("--down"), colour("--grid"), colour("--muted")];
        this.soft = { up: colour("--up-soft"), down: colour("--down-soft") };
        this.chart.applyOptions({
            layout: {
                background: { type: ColorType.Solid, color: colour("--panel") }, textColor: text,
                panes: { separatorColor: colour("--line"), separatorHoverColor: grid },
            },
            grid: { vertLines: { color: grid }, horzLines: { color: grid } },
        });
        this.candles.applyOptions({
            upColor: up, downColor: down, wickUpColor: up, wickDownColor: down, borderVisible: false,
        });
        this.load(this.bars);
        this.mark(this.orders);
    }

    private candle(bar: Bar): { time: UTCTimestamp; open: number; high: number; low: number; close: number } {
        const price = (ticks: number): number => this.instrument?.price.float(ticks) ?? ticks;
        return {
            time: bar.start as UTCTimestamp,
            open: price(bar.open), high: price(bar.high), low: price(bar.low), close: price(bar.close),
        };
    }

    private volume(bar: Bar): { time: UTCTimestamp; value: number; color: string } {
        return {
            time: bar.start as UTCTimestamp,
            value: this.instrument?.quantity.float(bar.volume) ?? bar.volume,
            color: bar.close >= bar.open ? this.soft.up : this.soft.down,
        };
    }

    private point(event: MouseEventParams): void {
        this.pointed = event.time === undefined ? null : Number(event.time);
        redraw(this.describeLater);
    }

    private readonly describeLater = (): void => this.describe();

    private describe(): void {
        const { instrument, pointed } = this;
        const bar = pointed === null ? this.bars.at(-1) : this.bars.find((each) => each.start === pointed);
        byId("chart-notice").hidden = this.bars.length > 0;
        byId("legend").hidden = bar === undefined;
        if (instrument === null || bar === undefined) return;
        const price = (ticks: number): string => instrument.price.format(ticks);
        setText(byId("legend-open"), price(bar.open));
        setText(byId("legend-high"), price(bar.high));
        setText(byId("legend-low"), price(bar.low));
        setText(byId("legend-close"), price(bar.close));
        setText(byId("legend-volume"), instrument.quantity.format(bar.volume));
        byId("legend").dataset["direction"] = bar.close >= bar.open ? "up" : "down";
    }
}
