// The control plane's messages (`model/src/api.rs`), as far as this page reads or writes them.

export interface PublishedFile {
  name: string;
  bytes: number;
  kind: string;
  summary: string;
}

export interface TitleOverview {
  title: string;
  version: string;
  name: string;
  published_at_ms: number;
  duration_ms: number;
  files: PublishedFile[];
  held_by: string[];
  plays_today: number;
}

export interface EdgeCounters {
  requests: number;
  bytes: number;
  hit_bytes: number;
  origin_bytes: number;
  connections: number;
}

export interface EdgeOverview {
  id: string;
  urls: string[];
  healthy: boolean;
  load: number;
  silent_ms: number;
  serving: boolean;
  counters: EdgeCounters;
  hit_ratio: number | null;
  planned_bytes_max: number;
  planned_bytes: number;
  planned_files: number;
  plan_complete: number | null;
}

export interface PlannedTitle {
  title: string;
  version: string;
  bytes: number;
  predicted_bytes: number;
}

export interface FillPlan {
  number: number;
  date: string;
  edge: string;
  titles: PlannedTitle[];
}

export interface PlanOverview {
  number: number;
  date: string;
  published_at_ms: number;
  plans: FillPlan[];
}

export interface Overview {
  titles: TitleOverview[];
  edges: EdgeOverview[];
  plan: PlanOverview | null;
  profiles: string[];
}

export interface RankedEdge {
  id: string;
  urls: string[];
  holds: boolean;
}

export interface Playback {
  play: string;
  title: string;
  version: string;
  name: string;
  duration_ms: number;
  token: string;
  expires: number;
  edges: RankedEdge[];
  hls: string[];
  dash: string[];
  steering: string;
}

export interface Reason {
  code: string;
  message: string;
}

export type EventKind = "start" | "progress" | "rebuffer" | "stop";

export interface PlayEvent {
  seq: number;
  kind: EventKind;
  at_ms: number;
  position_ms: number;
  watched_ms: number;
  bytes: number;
  waited_ms?: number;
  edge?: string;
}
