// The fleet, the titles and the last plan.

import { ago, bits, bytes, clock, percent, plural } from "./format";
import type { EdgeOverview, FillPlan, Overview, PlanOverview, TitleOverview } from "./model";
import { Chip, Meter, Tile } from "./ui";

interface Props {
  now: Overview;
  /** The overview before, `elapsedMs` earlier. */
  before: Overview | null;
  elapsedMs: number;
  onPlay: (title: string) => void;
}

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
const titleBytes = (title: TitleOverview) => sum(title.files.map((file) => file.bytes));

/** Bytes per second of an edge since the overview before; null after a restart or at first. */
function rate(edge: EdgeOverview, { before, elapsedMs }: Props): number | null {
  const last = before?.edges.find(({ id }) => id === edge.id);
  if (!last || elapsedMs <= 0 || edge.counters.bytes < last.counters.bytes) return null;
  return ((edge.counters.bytes - last.counters.bytes) * 1000) / elapsedMs;
}

export function OverviewPage(props: Props) {
  const { now } = props;
  const healthy = now.edges.filter((edge) => edge.healthy);
  const served = sum(now.edges.map((edge) => edge.counters.bytes));
  const hits = sum(now.edges.map((edge) => edge.counters.hit_bytes));
  const origin = sum(now.edges.map((edge) => edge.counters.origin_bytes));
  const rates = now.edges.map((edge) => rate(edge, props)).filter((value) => value !== null);
  const plays = sum(now.titles.map((title) => title.plays_today));
  return (
    <main class="page" data-testid="overview">
      <section class="tiles">
        <Tile
          label="Edges healthy"
          value={`${healthy.length} / ${now.edges.length}`}
          tone={healthy.length < now.edges.length ? "bad" : "good"}
          note={plural(sum(healthy.map((edge) => edge.counters.connections)), "open connection")}
        />
        <Tile label="Serving now" value={rates.length > 0 ? bits(sum(rates) * 8) : "–"} note={`${bytes(served)} in all`} />
        <Tile label="Hit ratio" value={percent(served > 0 ? hits / served : null)} note={`${bytes(origin)} from the origin`} />
        <Tile label="Titles" value={now.titles.length} note={bytes(sum(now.titles.map(titleBytes)))} />
        <Tile label="Plays today" value={plays} id="plays-today" note="since 0:00 UTC" />
      </section>

      <h2>Edges</h2>
      {now.edges.length === 0 && <p class="card empty">No edge has joined yet.</p>}
      <section class="cards" data-testid="edges">
        {now.edges.map((edge) => (
          <EdgeCard key={edge.id} edge={edge} perSecond={rate(edge, props)} plan={now.plan} />
        ))}
      </section>

      <h2>Titles</h2>
      {now.titles.length === 0 && <p class="card empty">Nothing is published yet: <code>nearcast ingest</code> adds a title.</p>}
      <section class="cards" data-testid="titles">
        {now.titles.map((title) => (
          <TitleCard key={title.title} title={title} onPlay={() => props.onPlay(title.title)} />
        ))}
      </section>

      <h2>Fill plan</h2>
      <Plan plan={now.plan} edges={now.edges} titles={now.titles} />
    </main>
  );
}

function EdgeCard({ edge, perSecond, plan }: { edge: EdgeOverview; perSecond: number | null; plan: PlanOverview | null }) {
  const state = !edge.healthy ? (edge.serving ? "silent" : "draining") : "healthy";
  const wanted = plan?.plans.find((each) => each.edge === edge.id);
  const wantedBytes = wanted ? sum(wanted.titles.map((title) => title.bytes)) : 0;
  const done = wanted !== undefined && edge.plan_complete === wanted.number;
  const filled = wantedBytes > 0 ? Math.min(1, edge.planned_bytes / wantedBytes) : 0;
  return (
    <article class={`card edge ${state}`} data-testid={`edge-${edge.id}`} data-state={state}>
      <header>
        <h3>{edge.id}</h3>
        <Chip tone={state === "healthy" ? "good" : state === "draining" ? "warn" : "bad"}>{state}</Chip>
        <span class="spacer" />
        <span class="muted small">heard {ago(edge.silent_ms)}</span>
      </header>
      <Meter label="Load" share={edge.load} value={percent(edge.load)} tone={edge.load > 0.8 ? "bad" : ""} />
      <Meter label="Hit ratio" share={edge.hit_ratio} value={percent(edge.hit_ratio)} tone="good" />
      <Meter
        label="Planned tier"
        share={edge.planned_bytes_max > 0 ? edge.planned_bytes / edge.planned_bytes_max : 0}
        value={`${bytes(edge.planned_bytes)} of ${bytes(edge.planned_bytes_max)}`}
      />
      <dl class="facts">
        <div><dt>Now</dt><dd>{perSecond === null ? "–" : bits(perSecond * 8)}</dd></div>
        <div><dt>Served</dt><dd>{bytes(edge.counters.bytes)}</dd></div>
        <div><dt>From origin</dt><dd>{bytes(edge.counters.origin_bytes)}</dd></div>
        <div><dt>Requests</dt><dd>{edge.counters.requests.toLocaleString("en")}</dd></div>
      </dl>
      <footer>
        {wanted === undefined ? (
          <Chip>no plan</Chip>
        ) : done ? (
          <Chip tone="good">plan {wanted.number} complete · {plural(edge.planned_files, "file")}</Chip>
        ) : (
          <Chip tone="warn">filling plan {wanted.number} · {percent(filled)}</Chip>
        )}
        <span class="urls">
          {edge.urls.map((url) => <code key={url}>{url}</code>)}
        </span>
      </footer>
    </article>
  );
}

function TitleCard({ title, onPlay }: { title: TitleOverview; onPlay: () => void }) {
  const of = (kind: string) => title.files.filter((file) => file.kind === kind);
  return (
    <article class="card title" data-testid={`title-${title.title}`}>
      <header>
        <h3>{title.name}</h3>
        <span class="spacer" />
        <button class="primary" onClick={onPlay} data-testid={`play-${title.title}`}>▶ Play</button>
      </header>
      <p class="muted small">
        <code>{title.title}</code> · {clock(title.duration_ms / 1000)} · {bytes(titleBytes(title))} · published{" "}
        {ago(Math.max(0, Date.now() - title.published_at_ms))}
      </p>
      <p class="chips">
        {of("video").map((file) => <Chip key={file.name} tone="video" title={`${file.name}, ${bytes(file.bytes)}`}>{short(file.summary)}</Chip>)}
        {of("audio").map((file) => <Chip key={file.name} tone="audio" title={`${file.name}, ${bytes(file.bytes)}`}>♪ {short(file.summary)}</Chip>)}
        {of("text").map((file) => <Chip key={file.name} tone="text" title={file.name}>CC {short(file.summary)}</Chip>)}
      </p>
      <footer>
        <span class="muted small">{plural(title.plays_today, "play")} today</span>
        <span class="spacer" />
        {title.held_by.length === 0
          ? <span class="muted small">on no edge yet: fetched on demand</span>
          : <span class="small">held by {title.held_by.map((id) => <Chip key={id} tone="good">{id}</Chip>)}</span>}
      </footer>
    </article>
  );
}

/** `1280x720 avc1.64001f` as `1280x720`. */
function short(summary: string): string {
  return summary.split(" ")[0] ?? summary;
}

function Plan({ plan, edges, titles }: { plan: PlanOverview | null; edges: EdgeOverview[]; titles: TitleOverview[] }) {
  if (!plan) {
    return <p class="card empty" data-testid="no-plan">No plan has been published yet: <code>nearcast plan run</code> makes one, usually from cron.</p>;
  }
  return (
    <section class="card" data-testid="plan">
      <header>
        <h3>Plan {plan.number}</h3>
        <Chip>for {plan.date}</Chip>
        <span class="spacer" />
        <span class="muted small">published {ago(Math.max(0, Date.now() - plan.published_at_ms))}</span>
      </header>
      <div class="scroll">
        <table>
          <thead>
            <tr><th>Edge</th><th>Titles, most valuable first</th><th class="num">Size</th><th class="num">Predicted</th><th>State</th></tr>
          </thead>
          <tbody>
            {plan.plans.map((each) => (
              <PlanRow key={each.edge} plan={each} edge={edges.find(({ id }) => id === each.edge)} titles={titles} />
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function PlanRow({ plan, edge, titles }: { plan: FillPlan; edge: EdgeOverview | undefined; titles: TitleOverview[] }) {
  const nameOf = (id: string) => titles.find(({ title }) => title === id)?.name ?? id;
  const complete = edge?.plan_complete === plan.number;
  return (
    <tr>
      <td>{plan.edge}</td>
      <td>{plan.titles.length === 0 ? <span class="muted">nothing</span> : plan.titles.map(({ title }) => nameOf(title)).join(", ")}</td>
      <td class="num">{bytes(sum(plan.titles.map((title) => title.bytes)))}</td>
      <td class="num" title="Bytes that these titles' plays are predicted to take that day, over all edges">
        {bytes(sum(plan.titles.map((title) => title.predicted_bytes)))}
      </td>
      <td><Chip tone={complete ? "good" : "warn"}>{complete ? "complete" : "filling"}</Chip></td>
    </tr>
  );
}
