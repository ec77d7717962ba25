// Dark and light: follows the system until the toggle is used. Colours live in style.css as light-dark() pairs.

import { byId } from "./dom.js";

const KEY = "tvops.theme";

/** Starts the toggle; `changed` runs whenever the page's colours are other ones. */
export function startTheme(changed: () => void): void {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const root = document.documentElement;
    const apply = (): void => {
        const stored = localStorage.getItem(KEY);
        root.style.colorScheme = stored ?? (system.matches ? "dark" : "light");
        byId("theme").setAttribute("aria-pressed", String(isDark()));
        changed();
    };
    byId("theme").addEventListener("click", () => {
        localStorage.setItem(KEY, isDark() ? "light" : "dark");
        apply();
    });
    system.addEventListener("change", apply);
    apply();
}

function isDark(): boolean {
    return document.documentElement.style.colorScheme === "dark";
}

/** Gives the present value of a colour variable as rgb(). */
export function colour(name: string): string {
    const probe = byId("probe");
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
}
