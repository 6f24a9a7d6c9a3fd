// Which protocol brought a response: the browser tells it only through resource timing.

const ENTRIES_MAX = 500;

const protocols = new Map<string, string>();
const waiting = new Map<string, ((protocol: string) => void)[]>();

const observer = new PerformanceObserver((list) => {
  for (const entry of list.getEntries() as PerformanceResourceTiming[]) {
    // Empty when the server does not send Timing-Allow-Origin, or the fetch failed.
    if (!entry.nextHopProtocol) continue;
    protocols.set(entry.name, entry.nextHopProtocol);
    for (const tell of waiting.get(entry.name) ?? []) tell(entry.nextHopProtocol);
    waiting.delete(entry.name);
  }
  for (const name of protocols.keys()) {
    if (protocols.size <= ENTRIES_MAX) break;
    protocols.delete(name);
  }
  // An observer sees entries beyond the buffer's limit, but players look at the buffer.
  performance.clearResourceTimings();
});
observer.observe({ type: "resource" });

/** Calls `tell` with `h2`, `h3`, ... once the browser says it for this URL. */
export function whenProtocolIsKnown(url: string, tell: (protocol: string) => void): void {
  const known = protocols.get(url);
  if (known !== undefined) {
    tell(known);
    return;
  }
  if (waiting.size >= ENTRIES_MAX) waiting.clear();
  waiting.set(url, [...(waiting.get(url) ?? []), tell]);
}
