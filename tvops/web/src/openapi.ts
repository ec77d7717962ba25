// The part of OpenAPI 3 that the reference page reads, and how schemas are put into words.

export interface Schema {
    readonly $ref?: string;
    readonly type?: string | readonly string[];
    readonly description?: string;
    readonly properties?: Readonly<Record<string, Schema>>;
    readonly required?: readonly string[];
    readonly items?: Schema;
    readonly anyOf?: readonly Schema[];
    readonly oneOf?: readonly Schema[];
    readonly enum?: readonly unknown[];
    readonly const?: unknown;
    readonly default?: unknown;
    readonly examples?: readonly unknown[];
    readonly pattern?: string;
    readonly minimum?: number;
    readonly maximum?: number;
    readonly additionalProperties?: Schema | boolean;
}

export interface Parameter {
    readonly $ref?: string;
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
    readonly description?: string;
    readonly schema?: Schema;
}

export interface Content {
    readonly schema?: Schema;
    readonly example?: unknown;
}

export interface Answer {
    readonly $ref?: string;
    readonly description?: string;
    readonly content?: Readonly<Record<string, Content>>;
}

export interface Operation {
    readonly summary?: string;
    readonly description?: string;
    readonly tags?: readonly string[];
    readonly parameters?: readonly Parameter[];
    readonly requestBody?: { readonly content?: Readonly<Record<string, Content>> };
    readonly responses?: Readonly<Record<string, Answer>>;
}

export interface Description {
    readonly info: { readonly title: string; readonly version: string; readonly description?: string };
    readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

const DEEPEST = 6;

/** Follows `$ref`s inside one description and says what schemas mean. */
export class Reader {
    constructor(private readonly description: Description) {}

    /** Gives what a `$ref` points to, or the thing itself. */
    resolve<T extends { readonly $ref?: string }>(thing: T): T {
        if (thing.$ref === undefined) return thing;
        let found: unknown = this.description;
        for (const part of thing.$ref.replace("#/", "").split("/")) {
            found = (found as Record<string, unknown>)[part.replaceAll("~1", "/").replaceAll("~0", "~")];
        }
        return (found ?? thing) as T;
    }

    /** Writes the type of a schema in a few words. */
    type(schema: Schema): string {
        const { anyOf, oneOf } = schema;
        const choices = anyOf ?? oneOf;
        if (choices) return choices.map((each) => this.type(each)).join(" or ");
        const name = schema.$ref?.split("/").at(-1);
        const real = this.resolve(schema);
        if (real.enum) return real.enum.map((value) => JSON.stringify(value)).join(" or ");
        if (real.const !== undefined) return JSON.stringify(real.const);
        if (real.type === "array") return `list of ${real.items ? this.type(real.items) : "anything"}`;
        return name ?? (Array.isArray(real.type) ? real.type.join(" or ") : String(real.type ?? "anything"));
    }

    /** Gives the fields of an object schema, also where it stands in a list or among alternatives. */
    fields(schema: Schema): [name: string, field: Schema, required: boolean][] {
        const real = this.resolve(schema);
        if (real.items) return this.fields(real.items);
        const inner = (real.anyOf ?? real.oneOf)?.find((each) => this.fields(each).length > 0);
        if (inner) return this.fields(inner);
        const required = new Set(real.required);
        return Object.entries(real.properties ?? {}).map(([name, field]) => [name, field, required.has(name)]);
    }

    /** Says what else holds for a field: description, default, range, pattern. */
    note(schema: Schema): string {
        const real = this.resolve(schema);
        const notes = [schema.description ?? real.description ?? ""];
        if (real.default !== undefined && real.default !== null) notes.push(`Default ${JSON.stringify(real.default)}.`);
        if (real.minimum !== undefined || real.maximum !== undefined) {
            notes.push(`From ${real.minimum ?? "…"} to ${real.maximum ?? "…"}.`);
        }
        if (real.pattern !== undefined && real.description === undefined) notes.push(`Matches ${real.pattern}.`);
        return notes.filter((note) => note !== "").join(" ");
    }

    /** Makes an example value, required fields only. */
    example(schema: Schema, depth = 0): unknown {
        const real = this.resolve(schema);
        const given = schema.examples?.[0] ?? real.examples?.[0] ?? real.const ?? real.enum?.[0];
        if (given !== undefined) return given;
        if (real.properties) {
            const fields = this.fields(real).filter(([, , required]) => required);
            return Object.fromEntries(fields.map(([name, field]) => [name, depth > DEEPEST ? null : this.example(field, depth + 1)]));
        }
        const choices = real.anyOf ?? real.oneOf;
        if (choices?.[0]) return this.example(choices[0], depth + 1);
        if (real.type === "array") return real.items && depth < DEEPEST ? [this.example(real.items, depth + 1)] : [];
        return { string: "", integer: real.minimum ?? 0, number: 0, boolean: false, object: {} }[String(real.type)] ?? null;
    }
}
