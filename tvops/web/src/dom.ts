// Few lines that make DOM code short. Text goes in as text nodes only: nothing that a server sends becomes markup.

type Attributes = Readonly<Record<string, string | boolean | ((event: Event) => void)>>;

/** Makes an element; `on…` attributes are listeners, true sets a bare attribute, false leaves it out. */
export function element<K extends keyof HTMLElementTagNameMap>(
    tag: K,
    attributes: Attributes = {},
    ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function") made.addEventListener(name.slice(2), value);
        else if (value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
}

/** Gives the element of the page with this id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
    const found = document.getElementById(id);
    if (found === null) throw new Error(`the page has no element #${id}`);
    return found as T;
}

/** Sets the text of a node only where it changes, which spares layout work. */
export function setText(node: Node, text: string): void {
    if (node.textContent !== text) node.textContent = text;
}

const waiting = new Set<() => void>();

/** Runs `draw` once before the next frame, however often it is asked for until then. */
export function redraw(draw: () => void): void {
    if (waiting.size === 0) {
        requestAnimationFrame(() => {
            const draws = [...waiting];
            waiting.clear();
            for (const each of draws) each();
        });
    }
    waiting.add(draw);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** Writes a time in ms since the epoch as local hours, minutes and seconds. */
export function timeOfDay(ms: number): string {
    return clock.format(ms);
}
