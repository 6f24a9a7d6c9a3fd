// The page: credential, the two views, and the overview that both read.

import { render } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { CredentialError, hasCredential, overview, setCredential, takeCredential } from "./api";
import type { Overview } from "./model";
import { OverviewPage } from "./overview";
import { PlayerPage } from "./player-page";
import { Logo } from "./ui";

const REFRESH_MS = 1_000;

interface Where {
  view: "overview" | "player";
  title: string | null;
}

function whereNow(): Where {
  const query = new URLSearchParams(location.search);
  return { view: query.get("view") === "player" ? "player" : "overview", title: query.get("title") };
}

/** The overview, refreshed while the page is seen. The one before it, for rates. */
function useOverview(enabled: boolean, onCredentialError: (message: string) => void) {
  const [state, setState] = useState<{ now: Overview; at: number; before: Overview | null; beforeAt: number } | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    if (!enabled) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let stopped = false;
    const refresh = async () => {
      try {
        if (!document.hidden) {
          const now = await overview();
          const at = performance.now();
          setState((last) => ({ now, at, before: last?.now ?? null, beforeAt: last?.at ?? 0 }));
          setError(null);
        }
      } catch (failure) {
        if (failure instanceof CredentialError) onCredentialError(failure.message);
        else setError(failure instanceof Error ? failure.message : String(failure));
      }
      if (!stopped) timer = setTimeout(refresh, REFRESH_MS);
    };
    void refresh();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [enabled]);
  return { state, error };
}

function CredentialForm({ message, onDone }: { message: string | null; onDone: () => void }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <main class="gate">
      <form
        class="card"
        onSubmit={(event) => {
          event.preventDefault();
          const key = input.current?.value.trim();
          if (!key) return;
          setCredential(key);
          onDone();
        }}
      >
        <Logo />
        <p>
          This console needs the operator's credential. <code>nearcast</code> keeps it in{" "}
          <code>credentials/operator</code> below the control plane's data folder.
        </p>
        <label>
          Credential
          <input ref={input} type="password" autocomplete="current-password" data-testid="credential" autofocus />
        </label>
        {message && <p class="notice bad">{message}</p>}
        <button class="primary" type="submit">Open the console</button>
      </form>
    </main>
  );
}

function App() {
  const [known, setKnown] = useState(hasCredential());
  const [gateMessage, setGateMessage] = useState<string | null>(null);
  const [where, setWhere] = useState(whereNow());
  const { state, error } = useOverview(known, (message) => {
    setCredential(null);
    setGateMessage(message);
    setKnown(false);
  });
  const go = useCallback((next: Where) => {
    const query = new URLSearchParams();
    if (next.view === "player") query.set("view", "player");
    if (next.title) query.set("title", next.title);
    history.pushState(null, "", query.size > 0 ? `?${query}` : location.pathname);
    setWhere(next);
    scrollTo(0, 0);
  }, []);
  useEffect(() => {
    const back = () => setWhere(whereNow());
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);

  if (!known) {
    return (
      <CredentialForm
        message={gateMessage}
        onDone={() => {
          setGateMessage(null);
          setKnown(true);
        }}
      />
    );
  }
  const tab = (view: Where["view"], label: string) => (
    <button
      class="tab"
      aria-current={where.view === view ? "page" : undefined}
      data-testid={`tab-${view}`}
      onClick={() => go({ view, title: null })}
    >
      {label}
    </button>
  );
  return (
    <>
      <header class="top">
        <Logo />
        <nav>
          {tab("overview", "Overview")}
          {tab("player", "Player")}
        </nav>
        <span class={error ? "live off" : "live"} title={error ?? "Refreshed every second"}>
          {error ? "no answer" : "live"}
        </span>
      </header>
      {error && <p class="notice bad wide">The control plane does not answer: {error}. What you see is its last word.</p>}
      {!state ? (
        <main class="page">{!error && <p class="muted">Loading…</p>}</main>
      ) : where.view === "player" ? (
        <PlayerPage overview={state.now} initialTitle={where.title} />
      ) : (
        <OverviewPage
          now={state.now}
          before={state.before}
          elapsedMs={state.at - state.beforeAt}
          onPlay={(title) => go({ view: "player", title })}
        />
      )}
    </>
  );
}

takeCredential();
render(<App />, document.getElementById("app")!);
