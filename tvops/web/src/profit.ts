// Unrealised profit, exactly: quantity x (last price - average price), cut to cents for display only.

import { formatScaled, scaled } from "./decimal.js";
import { type Instrument } from "./instrument.js";
import { type Position } from "./orders.js";

const SHOWN_PLACES = 2;

/** Writes the unrealised profit of a position at the last price (ticks), in the quote currency. */
export function profit(position: Position, last: number, instrument: Instrument): string {
    const average = position.averagePrice ?? "0";
    const places = Math.max(instrument.price.places, (average.split(".")[1] ?? "").length);
    const difference = scaled(instrument.price.format(last), places) - scaled(average, places);
    const units = scaled(position.quantity, instrument.quantity.places) * difference;
    const surplus = places + instrument.quantity.places - SHOWN_PLACES;
    return surplus <= 0
        ? formatScaled(units, places + instrument.quantity.places)
        : formatScaled(units / 10n ** BigInt(surplus), SHOWN_PLACES);
}
