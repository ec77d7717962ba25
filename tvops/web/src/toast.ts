// Short plain messages that come and go.

import { byId, element } from "./dom.js";

export type Tone = "good" | "bad" | "plain";

const LIFETIME = { good: 3500, plain: 4500, bad: 9000 } as const;
const MOST = 5;

/** Shows a message; a click or time takes it away. */
export function toast(title: string, detail = "", tone: Tone = "plain"): void {
    const box = byId("toasts");
    const note = element("div", { class: `toast ${tone}`, role: tone === "bad" ? "alert" : "status" });
    note.append(element("strong", {}, title));
    if (detail !== "") note.append(element("span", {}, detail));
    note.append(element("button", { type: "button", class: "close", "aria-label": "Dismiss", onclick: () => note.remove() }, "×"));
    box.append(note);
    while (box.children.length > MOST) box.firstElementChild?.remove();
    setTimeout(() => note.remove(), LIFETIME[tone]);
}
