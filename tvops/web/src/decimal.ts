// Exact decimals. Prices are whole ticks and quantities whole lots, as in the engine: they stay below 2**53, so a
// number holds them exactly. Products of both go through BigInt. A float is made for pixels only.

const PLAIN = /^[0-9]{1,20}(\.[0-9]{1,20})?$/;

/** Writes `units` x 10**-places as a decimal string. */
export function formatScaled(units: bigint, places: number): string {
    const sign = units < 0n ? "-" : "";
    const digits = (units < 0n ? -units : units).toString().padStart(places + 1, "0");
    return places === 0 ? sign + digits : `${sign}${digits.slice(0, -places)}.${digits.slice(-places)}`;
}

/** A tick or lot size as an exact ratio. */
export class Step {
    readonly places: number;
    readonly units: bigint;

    constructor(readonly name: string, readonly text: string) {
        const [whole = "0", fraction = ""] = text.split(".");
        const kept = fraction.replace(/0+$/, "");
        this.places = kept.length;
        this.units = BigInt(whole + kept);
        if (this.units <= 0n) throw new Error(`${name} ${text} is not above 0`);
    }

    /** Gives the number of steps that `text` is, or throws an Error that says in plain words why it is none. */
    parse(text: string): number {
        const written = text.trim();
        if (written === "") throw new Error(`Enter a ${this.name}`);
        if (!PLAIN.test(written)) throw new Error(`“${written.slice(0, 40)}” is not a plain decimal number`);
        const [whole = "0", fraction = ""] = written.split(".");
        const kept = fraction.replace(/0+$/, "");
        const units = kept.length > this.places ? null : BigInt(whole + kept.padEnd(this.places, "0"));
        if (units === null || units % this.units !== 0n) throw new Error(`${this.name} must be a multiple of ${this.text}`);
        const steps = units / this.units;
        if (steps > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`${this.name} is too large`);
        return Number(steps);
    }

    /** Writes `steps` as a decimal string, exactly. */
    format(steps: number): string {
        return formatScaled(BigInt(steps) * this.units, this.places);
    }

    /** Gives `steps` as a float, for drawing. */
    float(steps: number): number {
        return Number(this.format(steps));
    }
}

/** Inserts thousands separators into the whole part of a decimal string. */
export function grouped(text: string): string {
    const [whole = "", fraction] = text.split(".");
    const spaced = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return fraction === undefined ? spaced : `${spaced}.${fraction}`;
}

/** Takes trailing zeros off a decimal string, down to `places` digits after the point. */
export function trimmed(text: string, places: number): string {
    const point = text.indexOf(".");
    if (point < 0) return text;
    const kept = text.slice(0, point + 1 + places);
    return kept + text.slice(point + 1 + places).replace(/0+$/, "");
}

/** Reads a signed decimal string as a whole number of 10**-places; digits beyond are cut. */
export function scaled(text: string, places: number): bigint {
    const negative = text.startsWith("-");
    const [whole = "0", fraction = ""] = text.replace(/^[+-]/, "").split(".");
    const units = BigInt(whole + fraction.slice(0, places).padEnd(places, "0"));
    return negative ? -units : units;
}
