// Keyboard shortcuts; they rest while a field is being written in.

import { byId } from "./dom.js";
import { type Ticket } from "./ticket.js";

/** Starts the shortcuts. */
export function startKeys(ticket: Ticket, choose: (interval: "1s" | "1m") => void): void {
    const help = byId<HTMLDialogElement>("keys");
    byId("help").addEventListener("click", () => help.showModal());
    const actions: Record<string, () => void> = {
        b: () => ticket.start("buy"),
        s: () => ticket.start("sell"),
        p: () => byId("price").focus(),
        y: () => byId("symbol").focus(),
        t: () => byId("theme").click(),
        1: () => choose("1s"),
        2: () => choose("1m"),
        "?": () => help.showModal(),
    };
    addEventListener("keydown", (event) => {
        if (event.key === "Escape" && document.activeElement instanceof HTMLElement) document.activeElement.blur();
        const action = actions[event.key.toLowerCase()];
        if (!action || event.ctrlKey || event.metaKey || event.altKey || isWriting() || dialogOpen()) return;
        event.preventDefault();
        action();
    });
}

function isWriting(): boolean {
    const focused = document.activeElement;
    return focused instanceof HTMLSelectElement || (focused instanceof HTMLInputElement && focused.type !== "radio" && focused.type !== "checkbox");
}

function dialogOpen(): boolean {
    return document.querySelector("dialog[open]") !== null;
}
