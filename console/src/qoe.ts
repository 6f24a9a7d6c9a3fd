// Quality of experience, from the video element alone: the same for every player.

/** A step of the clock beyond this is a seek or a sleep, not watching. Seconds. */
const STEP_MAX = 2;

export interface Qoe {
  /** From the request to the first frame; null before it. */
  startMs: number | null;
  rebuffers: number;
  rebufferMs: number;
  watchedMs: number;
}

interface Listener {
  onStart: (startMs: number) => void;
  onRebuffer: (waitedMs: number) => void;
  onEnded: () => void;
}

/** Watches `video` until the signal; `requestedAt` is by `performance.now()`. */
export function watch(video: HTMLVideoElement, requestedAt: number, listener: Listener, signal: AbortSignal): Qoe {
  const qoe: Qoe = { startMs: null, rebuffers: 0, rebufferMs: 0, watchedMs: 0 };
  let position: number | null = null;
  let waitingSince: number | null = null;
  let seeking = false;

  const started = () => {
    if (qoe.startMs !== null || signal.aborted) return;
    qoe.startMs = performance.now() - requestedAt;
    listener.onStart(qoe.startMs);
  };
  const resumed = () => {
    if (waitingSince === null) return;
    const waited = performance.now() - waitingSince;
    waitingSince = null;
    qoe.rebuffers++;
    qoe.rebufferMs += waited;
    listener.onRebuffer(waited);
  };
  const on = (type: string, handler: () => void) => video.addEventListener(type, handler, { signal });

  on("playing", () => {
    if (!("requestVideoFrameCallback" in video)) started();
    seeking = false;
    resumed();
  });
  if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(started);
  on("seeking", () => {
    seeking = true;
    position = null;
    // Waiting for a seek is the viewer's own doing.
    waitingSince = null;
  });
  on("waiting", () => {
    const atEnd = video.duration - video.currentTime < 0.25;
    if (qoe.startMs !== null && !seeking && !video.paused && !atEnd) waitingSince ??= performance.now();
  });
  on("timeupdate", () => {
    if (position !== null && !video.seeking) {
      const step = video.currentTime - position;
      if (step > 0 && step < STEP_MAX) {
        qoe.watchedMs += (step * 1000) / video.playbackRate;
        if (video.readyState > HTMLMediaElement.HAVE_CURRENT_DATA) resumed();
      }
    }
    position = video.currentTime;
  });
  on("ended", () => {
    waitingSince = null;
    listener.onEnded();
  });
  return qoe;
}
