// What the player page asks of a player, whichever library is behind it.

import type { EdgeTransport } from "../transport";

export type PlayerKind = "hlsjs" | "dashjs" | "shaka-dash" | "shaka-hls";

export const PLAYERS: { kind: PlayerKind; label: string; format: "hls" | "dash" }[] = [
  { kind: "hlsjs", label: "hls.js", format: "hls" },
  { kind: "dashjs", label: "dash.js", format: "dash" },
  { kind: "shaka-dash", label: "Shaka, DASH", format: "dash" },
  { kind: "shaka-hls", label: "Shaka, HLS", format: "hls" },
];

export interface Rendition {
  id: string;
  height: number;
  /** Bits per second. */
  bitrate: number;
}

export interface Choice {
  id: string;
  label: string;
}

/** What can be chosen now, and what is. */
export interface Tracks {
  renditions: Rendition[];
  /** What plays (or loads) now. */
  rendition: Rendition | null;
  /** The player chooses by itself. */
  auto: boolean;
  audio: Choice[];
  audioId: string | null;
  text: Choice[];
  /** Null: no subtitles. */
  textId: string | null;
}

export const NO_TRACKS: Tracks = {
  renditions: [],
  rendition: null,
  auto: true,
  audio: [],
  audioId: null,
  text: [],
  textId: null,
};

export interface Host {
  video: HTMLVideoElement;
  transport: EdgeTransport;
  /** The player cannot go on. */
  onFatal: (message: string) => void;
}

export interface Player {
  /** Library and version. */
  readonly version: string;
  /** Loads a manifest; playback starts by the video element. */
  load(url: string): Promise<void>;
  tracks(): Tracks;
  /** Null: let the player choose. */
  selectRendition(id: string | null): void;
  selectAudio(id: string): void;
  selectText(id: string | null): void;
  destroy(): Promise<void>;
}

/** Loads a player's library, on first use only. */
export async function createPlayer(kind: PlayerKind, host: Host): Promise<Player> {
  switch (kind) {
    case "hlsjs":
      return (await import("./hls")).create(host);
    case "dashjs":
      return (await import("./dash")).create(host);
    case "shaka-dash":
    case "shaka-hls":
      return (await import("./shaka")).create(host);
  }
}

/** A track's name for people: manifests may have none, or only the language tag. */
export function trackName(name: string | null | undefined, language: string | null | undefined): string {
  return name && name !== language ? name : languageName(language);
}

/** `en` as `English`, where the browser knows it. */
function languageName(tag: string | null | undefined): string {
  if (!tag || tag === "und") return "Unnamed";
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(tag) ?? tag;
  } catch {
    return tag;
  }
}
