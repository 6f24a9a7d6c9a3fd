//! Connections come and go, and leave nothing behind.

use crate::world::{World, assert_first, within};
use nearcast_wire::quic::{HANDSHAKES_MAX, ResetKey, bind};
use nearcast_wire::{Levers, Patience};
use quinn::{ConnectionError, ReadError};
use std::time::{Duration, Instant};

/// Connections of one run; more where `NEARCAST_CONNECTIONS` says so.
fn connections() -> usize {
    let asked = std::env::var("NEARCAST_CONNECTIONS").ok();
    asked.map_or(300, |asked| asked.parse().expect("NEARCAST_CONNECTIONS is a number"))
}

/// Some end well, some leave in mid-body, some only shake hands.
#[tokio::test]
async fn many_connections_leave_no_task() {
    let world = World::start(2, Levers::default());
    for round in 0..connections().div_ceil(20) {
        let world = &world;
        let all = (round..round + 20).map(|number| async move {
            let connection = world.connect().await;
            match number % 3 {
                0 => assert_first(&connection.body("/30000").await.unwrap()),
                1 => {
                    let mut stream = connection.get("/9000000").await;
                    within(stream.read_chunk(1000, true)).await.unwrap();
                }
                _ => {}
            }
            connection.quic.close(0x100_u32.into(), b"");
            connection.endpoint.wait_idle().await;
        });
        futures::future::join_all(all).await;
    }
    world.until_open(0).await;
    assert_eq!(world.shared.tasks.len(), 0);
    world.end().await;
}

/// More handshakes under way than an endpoint takes from anyone: clients that prove their
/// address get in all the same.
#[tokio::test]
async fn under_pressure_clients_prove_their_address() {
    // So many at once take a while where others use the processor, too.
    let patience = Patience { handshake: Duration::from_secs(600), ..Patience::default() };
    let sockets = bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
    let world = World::patient(sockets, Levers::default(), &ResetKey::random(), patience);
    let endpoint = world.client();
    let asked = HANDSHAKES_MAX + 100;
    let shaking = (0..asked).map(|_| endpoint.connect(world.addr, "localhost").unwrap());
    let shaken = within(futures::future::join_all(shaking)).await;
    let failed: Vec<_> = shaken.iter().filter_map(|shaken| shaken.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(world.counter("nearcast_edge_quic_retries_total") > 0.0);
    drop(shaken);
    endpoint.wait_idle().await;
    world.end().await;
}

/// A client of a process that is gone learns so from the next one, instead of waiting.
#[tokio::test]
async fn a_crash_is_told_by_the_next_process() {
    let key = ResetKey::random();
    let sockets = bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
    let world = World::on(sockets, Levers::default(), &key);
    let addr = world.addr;
    let connection = world.connect().await;
    connection.body("/1000").await.unwrap();
    world.crash().await;

    let world = World::on(bind(addr, 2).unwrap(), Levers::default(), &key);
    connection.get("/1000").await;
    let ended = within(connection.quic.closed()).await;
    assert!(matches!(ended, ConnectionError::Reset), "{ended}");
    world.end().await;
}

/// A request that panics is reset, is counted, and disturbs no other one of its connection.
#[tokio::test]
async fn panics_are_counted_and_never_look_whole() {
    let world = World::start(1, Levers::default());
    let connection = world.connect().await;
    for path in ["/panic", "/0/panic", "/500000/panic"] {
        let body = connection.body(path).await;
        assert!(matches!(body, Err(ReadError::Reset(_))), "{path}: {body:?}");
        assert_first(&connection.body("/30000").await.unwrap());
    }
    assert_eq!(world.counter("nearcast_edge_connection_panics_total") as u64, 3);
    world.end().await;
}

/// What threads of this process, shards, have run so far, in nanoseconds.
fn shards_ran() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let ran = tasks.filter_map(|task| {
        let task = task.ok()?.path();
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let ran = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let ran: u64 = ran.split(' ').next()?.parse().ok()?;
        name.starts_with("shard-").then_some(ran)
    });
    ran.sum()
}

/// Ignored beside other tests, whose shards run too: `./check --full` runs it alone.
#[tokio::test]
#[ignore = "measures the whole process"]
async fn idle_connections_cost_nothing() {
    let world = World::start(1, Levers::default());
    let mut open = Vec::new();
    for _ in 0..50 {
        let connection = world.connect().await;
        connection.body("/200000").await.unwrap();
        open.push(connection);
    }
    // What is under way (probes of the path, last acknowledgements) ends first.
    let started = Instant::now();
    let window = Duration::from_secs(2);
    loop {
        let before = shards_ran();
        tokio::time::sleep(window).await;
        let ran = Duration::from_nanos(shards_ran() - before);
        if ran < window / 1000 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(40), "idle shards ran {ran:?}");
    }
    drop(open);
    world.end().await;
}
