// The API reference: reads /openapi.json, shows every operation, and lets it be tried.

import { byId, element } from "./dom.js";
import { type Answer, type Description, type Operation, type Parameter, Reader, type Schema } from "./openapi.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

async function start(): Promise<void> {
    const page = byId("operations");
    try {
        const response = await fetch("/openapi.json");
        if (!response.ok) throw new Error(`the gateway answered ${response.status}`);
        show(page, (await response.json()) as Description);
    } catch (error) {
        page.replaceChildren(element("p", {}, `The description cannot be loaded: ${String(error)}`));
    }
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

function show(page: HTMLElement, description: Description): void {
    const reader = new Reader(description);
    const { info } = description;
    page.replaceChildren(element("h2", {}, `${info.title} ${info.version}`), ...paragraphs(info.description));
    const links = byId("links");
    let group = "";
    for (const [path, item] of Object.entries(description.paths)) {
        for (const [method, operation] of Object.entries(item)) {
            if (!METHODS.includes(method)) continue;
            const tag = operation.tags?.[0] ?? "";
            if (tag !== group) links.append(element("h3", {}, tag));
            group = tag;
            const id = `${method} ${path}`;
            links.append(element("a", { href: `#${encodeURIComponent(id)}` }, badge(method), path));
            page.append(section(reader, id, method, path, operation));
        }
    }
}

function section(reader: Reader, id: string, method: string, path: string, operation: Operation): HTMLElement {
    const parameters = (operation.parameters ?? []).map((each) => reader.resolve(each));
    const body = operation.requestBody?.content?.["application/json"]?.schema;
    const made = element("section", { id }, element("h3", {}, badge(method), element("code", {}, path)));
    made.append(...paragraphs(operation.summary, "lead"), ...paragraphs(operation.description));
    if (parameters.length > 0) {
        const rows = parameters.map((p): Row => [p.name, p.schema ?? {}, p.required === true, p.description ?? ""]);
        made.append(element("h4", {}, "Parameters"), fieldTable(reader, rows));
    }
    if (body) made.append(element("h4", {}, `Body: ${reader.type(body)}`), schemaTable(reader, body));
    made.append(element("h4", {}, "Answers"), ...Object.entries(operation.responses ?? {}).map(([status, answer]) =>
        answerView(reader, status, reader.resolve(answer))));
    made.append(trial(reader, method, path, parameters, body));
    return made;
}

function answerView(reader: Reader, status: string, answer: Answer): HTMLElement {
    const schema = Object.values(answer.content ?? {})[0]?.schema;
    const title = [element("b", { class: status.startsWith("2") ? "good" : "bad" }, status), ` ${answer.description ?? ""} `];
    if (!schema) return element("p", { class: "answer" }, ...title);
    const kind = element("span", { class: "type" }, reader.type(schema));
    return element("details", { class: "answer" }, element("summary", {}, ...title, kind), schemaTable(reader, schema));
}

type Row = [name: string, schema: Schema, required: boolean, note: string];

function schemaTable(reader: Reader, schema: Schema): HTMLElement {
    return fieldTable(reader, reader.fields(schema).map(([name, field, required]): Row => [name, field, required, ""]));
}

function fieldTable(reader: Reader, rows: readonly Row[]): HTMLElement {
    const lines = rows.map(([name, schema, required, note]) => element("tr", {},
        element("td", {}, element("code", {}, name), required ? element("i", { title: "required" }, " *") : ""),
        element("td", { class: "type" }, reader.type(schema)),
        element("td", {}, note || reader.note(schema))));
    return element("table", {}, element("tbody", {}, ...lines));
}

/** Makes the form that sends the request and shows what comes back. */
function trial(reader: Reader, method: string, path: string, parameters: readonly Parameter[], body?: Schema): HTMLElement {
    const inputs = parameters.filter((p) => p.in === "path" || p.in === "query").map((parameter) => {
        const input = element("input", { name: parameter.name, maxlength: "100", required: parameter.in === "path" });
        return { parameter, input, label: element("label", {}, parameter.name, input) };
    });
    const text = element("textarea", { rows: "8", spellcheck: "false", "aria-label": "Body" });
    if (body) text.value = JSON.stringify(reader.example(body), null, 2);
    const output = element("pre", { hidden: true });
    const send = async (event: Event): Promise<void> => {
        event.preventDefault();
        const filled = inputs.filter(({ input }) => input.value !== "");
        const query = new URLSearchParams(filled.filter((i) => i.parameter.in === "query").map((i) => [i.parameter.name, i.input.value]));
        const address = filled.reduce((url, i) => url.replace(`{${i.parameter.name}}`, encodeURIComponent(i.input.value)), path);
        output.hidden = false;
        output.textContent = await answer(method, query.size > 0 ? `${address}?${query}` : address, body ? text.value : null);
    };
    const form = element("form", { onsubmit: (event) => void send(event) },
        ...inputs.map(({ label }) => label), ...(body ? [text] : []), element("button", {}, "Send"), output);
    return element("details", { class: "trial" }, element("summary", {}, "Try it"), form);
}

async function answer(method: string, url: string, body: string | null): Promise<string> {
    const key = sessionStorage.getItem("tvops.key");
    const headers = { ...(body === null ? {} : { "Content-Type": "application/json" }), ...(key ? { "X-API-Key": key } : {}) };
    try {
        const response = await fetch(url, { method: method.toUpperCase(), headers, body });
        const text = await response.text();
        const json = response.headers.get("content-type")?.includes("json") === true;
        return `${response.status} ${response.statusText}\n\n${json ? JSON.stringify(JSON.parse(text), null, 2) : text}`;
    } catch (error) {
        return `No answer: ${String(error)}`;
    }
}

function badge(method: string): HTMLElement {
    return element("b", { class: `method ${method}` }, method.toUpperCase());
}

function paragraphs(text: string | undefined, style = ""): HTMLElement[] {
    return (text ?? "").split(/\n\s*\n/).filter((part) => part.trim() !== "").map((part) => element("p", { class: style }, part.trim()));
}

void start();
