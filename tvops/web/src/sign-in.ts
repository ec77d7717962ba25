// The API key, where the stack wants one: asked for once, kept for this tab only.

import { byId } from "./dom.js";

const KEY = "tvops.key";

/** Gives the key that the user entered, or "". */
export function apiKey(): string {
    return sessionStorage.getItem(KEY) ?? "";
}

/** Asks for a key; with one, the page begins again. */
export function askForKey(): void {
    const dialog = byId<HTMLDialogElement>("sign-in");
    if (dialog.open) return;
    sessionStorage.removeItem(KEY);
    const input = byId<HTMLInputElement>("api-key");
    dialog.addEventListener("close", () => {
        if (dialog.returnValue !== "use" || input.value === "") return;
        sessionStorage.setItem(KEY, input.value);
        location.reload();
    }, { once: true });
    dialog.showModal();
}
