// A WebSocket that comes back: exponential back-off with jitter, and a watchdog for connections that fell silent.

export type Link = "connecting" | "open" | "lost";

export interface SocketEvents {
    /** The connection stands: say hello, subscribe, resume. */
    opened(): void;
    received(message: unknown): void;
    /** The state changed; `reason` is what the server said when it closed. */
    changed(link: Link, reason: string): void;
}

const FIRST_DELAY = 250;
const LONGEST_DELAY = 8000;
const SILENCE = 15_000;

export class Socket {
    private socket: WebSocket | null = null;
    private delay = FIRST_DELAY;
    private timer = 0;
    private heard = 0;

    constructor(private readonly url: () => string, private readonly events: SocketEvents) {
        addEventListener("online", () => this.retryNow());
        document.addEventListener("visibilitychange", () => {
            if (!document.hidden) this.retryNow();
        });
        setInterval(() => this.watch(), 1000);
    }

    /** Milliseconds since the server was last heard. */
    get silence(): number {
        return performance.now() - this.heard;
    }

    connect(): void {
        clearTimeout(this.timer);
        this.timer = 0;
        this.events.changed("connecting", "");
        const socket = new WebSocket(this.url());
        this.socket = socket;
        this.heard = performance.now();
        socket.onopen = () => {
            this.events.changed("open", "");
            this.events.opened();
        };
        socket.onmessage = (event) => {
            this.delay = FIRST_DELAY;
            this.heard = performance.now();
            if (typeof event.data === "string") this.events.received(JSON.parse(event.data));
        };
        socket.onclose = (event) => {
            if (this.socket === socket) this.lost(event.reason);
        };
    }

    /** Sends a message; gives false where there is no connection. */
    send(message: unknown): boolean {
        if (this.socket?.readyState !== WebSocket.OPEN) return false;
        this.socket.send(JSON.stringify(message));
        return true;
    }

    private lost(reason: string): void {
        this.socket = null;
        this.events.changed("lost", reason);
        this.timer = window.setTimeout(() => this.connect(), this.delay * (0.75 + Math.random() / 2));
        this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
    }

    private retryNow(): void {
        if (this.timer !== 0) this.connect();
    }

    private watch(): void {
        const socket = this.socket;
        if (socket === null || this.silence < SILENCE) return;
        socket.close();
        this.lost(`nothing heard for ${SILENCE / 1000} s`);
    }
}

const PING_EVERY = 4000;

/** Round-trip time of a connection, by a ping that the server answers at once. */
export class Latency {
    private sent: number | null = null;
    /** The last round trip in ms, or null before the first. */
    value: number | null = null;

    constructor(ping: () => boolean) {
        setInterval(() => {
            if (ping()) this.sent = performance.now();
        }, PING_EVERY);
    }

    answered(): void {
        if (this.sent === null) return;
        this.value = performance.now() - this.sent;
        this.sent = null;
    }
}
