// Sends a play's events until the control plane has them on disk (204). A resent event keeps
// its `seq`, so that it counts once.

import type { EventKind, PlayEvent } from "./model";

/** Events that wait at most; beyond it the oldest progress event is dropped. */
export const QUEUE_MAX = 500;
/** Events of one request at most (the control plane's own limit). */
export const BATCH_MAX = 100;
const SEND_MS_MAX = 5_000;
const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 30_000;

export interface Facts {
  position_ms: number;
  watched_ms: number;
  bytes: number;
  waited_ms?: number;
  edge?: string;
}

export interface EventCounts {
  queued: number;
  acknowledged: number;
  dropped: number;
}

export class PlayEvents {
  private readonly queue: PlayEvent[] = [];
  private seq = 0;
  private sending = false;
  private backoffMs = BACKOFF_MS_MIN;
  private acknowledged = 0;
  private dropped = 0;

  constructor(
    private readonly url: string,
    private readonly token: string,
  ) {}

  get counts(): EventCounts {
    return { queued: this.queue.length, acknowledged: this.acknowledged, dropped: this.dropped };
  }

  add(kind: EventKind, facts: Facts): void {
    if (this.queue.length >= QUEUE_MAX) {
      const oldest = this.queue.findIndex((event) => event.kind === "progress");
      this.queue.splice(Math.max(0, oldest), 1);
      this.dropped++;
    }
    this.queue.push({ seq: this.seq++, kind, at_ms: Date.now(), ...whole(facts) });
    void this.send();
  }

  /** The page goes away: hands what waits to the browser, which sends it without the page. */
  flush(): void {
    if (this.queue.length > 0) void this.post(this.queue.slice(0, BATCH_MAX), true).catch(() => undefined);
  }

  private async send(): Promise<void> {
    if (this.sending) return;
    this.sending = true;
    while (this.queue.length > 0) {
      const batch = this.queue.slice(0, BATCH_MAX);
      const status = await this.post(batch, false).catch(() => 0);
      // A refusal stays one, however often it is repeated.
      const refused = status >= 400 && status < 500 && status !== 408 && status !== 429;
      if (status === 204 || refused) {
        const sent = new Set(batch);
        this.queue.splice(0, this.queue.length, ...this.queue.filter((event) => !sent.has(event)));
        if (refused) this.dropped += batch.length;
        else this.acknowledged += batch.length;
        this.backoffMs = BACKOFF_MS_MIN;
      } else {
        await new Promise((resolve) => setTimeout(resolve, this.backoffMs));
        this.backoffMs = Math.min(BACKOFF_MS_MAX, this.backoffMs * 2);
      }
    }
    this.sending = false;
  }

  private async post(events: PlayEvent[], keepalive: boolean): Promise<number> {
    const response = await fetch(this.url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: this.token, events }),
      keepalive,
      signal: keepalive ? null : AbortSignal.timeout(SEND_MS_MAX),
    });
    return response.status;
  }
}

/** The control plane takes whole numbers. */
function whole(facts: Facts): Facts {
  const { position_ms, watched_ms, bytes, waited_ms } = facts;
  return {
    ...facts,
    position_ms: Math.round(position_ms),
    watched_ms: Math.round(watched_ms),
    bytes: Math.round(bytes),
    ...(waited_ms === undefined ? {} : { waited_ms: Math.round(waited_ms) }),
  };
}
