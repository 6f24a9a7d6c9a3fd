// What a URL of a title site names (`model/src/route.rs`).

export type Kind = "manifest" | "init" | "segment" | "text" | "steering" | "other";

export interface Named {
  kind: Kind;
  /** `v1`; empty for top manifests. */
  track: string;
  /** Segment number; null for all else. */
  number: number | null;
}

export function name(url: string): Named {
  const path = new URL(url, "http://x").pathname;
  const rest = /^(?:\/v1\/steering)?\/~[^/]+\/t\/[^/]+\/[^/]+\/(.+)$/.exec(path)?.[1];
  if (rest === undefined) return { kind: "other", track: "", number: null };
  if (rest === "steering.json") return { kind: "steering", track: "", number: null };
  if (rest === "hls.m3u8" || rest === "dash.mpd") return { kind: "manifest", track: "", number: null };
  const segment = /^([^/]+)\/(\d+)\.m4s$/.exec(rest);
  if (segment) return { kind: "segment", track: segment[1]!, number: Number(segment[2]) };
  const file = /^([^/]+?)(?:\/init\.mp4|\.(m3u8|vtt|mp4))$/.exec(rest);
  if (!file) return { kind: "other", track: "", number: null };
  const kind = ({ m3u8: "manifest", vtt: "text", mp4: "segment" } as const)[file[2] ?? ""] ?? "init";
  return { kind, track: file[1]!, number: null };
}

/** `edge-a;fwd=miss;stored;detail="origin"` (RFC 9211): which cache, and its verdict. */
export function cacheStatus(header: string | null): { edge: string | null; verdict: string | null } {
  // The last member is the cache closest to the client.
  const nearest = header?.split(",").at(-1);
  if (!nearest) return { edge: null, verdict: null };
  const [id, ...params] = nearest.split(";").map((part) => part.trim());
  const detail = params.find((param) => param.startsWith("detail="))?.slice("detail=".length);
  const bare = (text: string) => text.replace(/^"|"$/g, "");
  return { edge: bare(id ?? "") || null, verdict: detail === undefined ? null : bare(detail) };
}
