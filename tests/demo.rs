//! `nearcast demo` as a person starts it: two at once, Ctrl-C, and a parent that is killed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "a test binary")]

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const WAIT: Duration = Duration::from_secs(60);
/// One test at a time: each runs whole fleets, with real time in their failovers.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearcast"));
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    command.args(["--log-level", "warn", "demo", "--samples"]).arg(samples);
    command.stderr(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

fn pid(number: &serde_json::Value) -> Pid {
    Pid::from_raw(i32::try_from(number.as_i64().unwrap()).unwrap()).unwrap()
}

/// Starts a demo in a process group of its own, as a terminal does; gives the pids of its parts
/// once it is up.
async fn started(dir: &Path) -> (Child, Vec<Pid>) {
    let announce = dir.join("announce.json");
    let mut command = demo();
    command.arg("--dir").arg(dir.join("data")).arg("--announce").arg(&announce);
    let child = command.process_group(0).spawn().unwrap();
    let up = Instant::now();
    while !announce.exists() {
        assert!(up.elapsed() < WAIT, "the demo is not up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = std::fs::read(&announce).unwrap();
    let announced: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let edges = announced["edges"].as_array().unwrap().iter().map(|edge| pid(&edge["pid"]));
    let rest = ["origin", "control-plane"].map(|part| pid(&announced["pids"][part]));
    (child, edges.chain(rest).collect())
}

async fn all_gone(parts: &[Pid]) {
    let asked = Instant::now();
    while parts.iter().any(|part| test_kill_process(*part).is_ok()) {
        assert!(asked.elapsed() < WAIT, "parts of the demo are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_demos_check_themselves_side_by_side() {
    let _alone = ALONE.lock().await;
    let (one, two) = tokio::join!(demo().arg("--check").output(), demo().arg("--check").output());
    for output in [one.unwrap(), two.unwrap()] {
        let said = String::from_utf8(output.stdout).unwrap();
        let complained = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}{complained}");
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!((last["ok"].clone(), last["wrong_bytes"].clone()), (true.into(), 0.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_the_demo_and_all_its_parts_in_order() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    // Twice in one folder: what the first left is no hindrance.
    for _ in 0..2 {
        let (demo, parts) = started(dir.path()).await;
        std::fs::remove_file(dir.path().join("announce.json")).unwrap();
        let group = Pid::from_raw(i32::try_from(demo.id().unwrap()).unwrap()).unwrap();
        kill_process_group(group, Signal::INT).unwrap();
        let output = tokio::time::timeout(WAIT, demo.wait_with_output()).await.unwrap().unwrap();
        let complained = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{complained}");
        all_gone(&parts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_demo_leaves_no_process_behind() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut demo, parts) = started(dir.path()).await;
    let own = Pid::from_raw(i32::try_from(demo.id().unwrap()).unwrap()).unwrap();
    kill_process(own, Signal::KILL).unwrap();
    demo.wait().await.unwrap();
    all_gone(&parts).await;
}
