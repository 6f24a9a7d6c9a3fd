// Small pieces that both views use.

import type { ComponentChildren } from "preact";

export function Logo() {
  return (
    <span class="logo">
      <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
        <rect width="32" height="32" rx="8" class="logo-box" />
        <circle cx="10" cy="22" r="3" fill="#fff" />
        <path d="M10 14a8 8 0 0 1 8 8M10 7a15 15 0 0 1 15 15" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round" />
      </svg>
      nearcast
    </span>
  );
}

export function Tile(props: { label: string; value: ComponentChildren; note?: ComponentChildren; id?: string; tone?: string }) {
  return (
    <div class={`tile ${props.tone ?? ""}`} data-testid={props.id}>
      <span class="label">{props.label}</span>
      <strong>{props.value}</strong>
      {props.note !== undefined && <span class="note">{props.note}</span>}
    </div>
  );
}

/** A bar with its meaning on the left and its value on the right. `share` is 0 to 1 or unknown. */
export function Meter(props: { label: string; share: number | null; value: ComponentChildren; tone?: string }) {
  const share = Math.min(1, Math.max(0, props.share ?? 0));
  return (
    <div class="meter">
      <span class="label">{props.label}</span>
      <span class="value">{props.value}</span>
      <span class="track">
        <span class={`fill ${props.tone ?? ""}`} style={{ width: `${share * 100}%` }} />
      </span>
    </div>
  );
}

export function Chip(props: { children: ComponentChildren; tone?: string; title?: string }) {
  return (
    <span class={`chip ${props.tone ?? ""}`} title={props.title}>
      {props.children}
    </span>
  );
}

/** One colour per verdict of an edge, wherever it is shown. */
export function verdictTone(verdict: string | null): string {
  switch (verdict) {
    case "hit-plan":
    case "hit-memory":
    case "hit-ssd":
    case "filling":
    case "origin":
      return `v-${verdict}`;
    default:
      return verdict === null ? "v-none" : "v-other";
  }
}
