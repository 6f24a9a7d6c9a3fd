//! Apache Traffic Server: one event thread, 1 GiB of memory in front of its disk cache, objects
//! of any size in it, no log. Debian has it up to release 12, in version 9.

use super::{envs, installed, write};
use crate::cases::{Case, Source};
use crate::servers::{CACHE_MIB, Running, Start, World, free_port};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// The settings that differ from its own defaults, without those of places and ports.
const SETTINGS: &str = "
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.exec_thread.affinity INT 0
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.net.connections_throttle INT 20000
CONFIG proxy.config.net.default_inactivity_timeout INT 3600
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 3600
CONFIG proxy.config.http.keep_alive_no_activity_timeout_out INT 3600
CONFIG proxy.config.http.transaction_no_activity_timeout_in INT 3600
CONFIG proxy.config.http.insert_response_via_str INT 2
CONFIG proxy.config.http.wait_for_cache INT 2
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.http.cache.max_open_write_retries INT 10
CONFIG proxy.config.http.default_buffer_size INT 8
CONFIG proxy.config.http.default_buffer_water_mark INT 262144
CONFIG proxy.config.http2.max_concurrent_streams_in INT 128
CONFIG proxy.config.http2.no_activity_timeout_in INT 3600
CONFIG proxy.config.http2.accept_no_activity_timeout INT 3600
CONFIG proxy.config.http2.default_buffer_water_mark INT 262144
CONFIG proxy.config.http2.write_buffer_block_size INT 262144
CONFIG proxy.config.cache.ram_cache_cutoff INT 67108864
CONFIG proxy.config.cache.ram_cache.algorithm INT 1
CONFIG proxy.config.cache.ram_cache.use_seen_filter INT 0
CONFIG proxy.config.cache.max_doc_size INT 0
CONFIG proxy.config.cache.min_average_object_size INT 8000
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.ssl.TLSv1 INT 0
CONFIG proxy.config.ssl.TLSv1_1 INT 0
CONFIG proxy.config.ssl.TLSv1_2 INT 0
CONFIG proxy.config.ssl.max_record_size INT 0
";

pub fn start(world: &World, source: Source) -> Result<Running> {
    if source == Source::Planned {
        bail!("Traffic Server has no plan, and nginx stands for files on disk");
    }
    let server = installed(world, "ats", "traffic_server")?;
    let dir = world.folder(&format!("ats-{}", source.name()))?;
    for name in ["etc", "run", "logs", "cache", "share"] {
        let part = dir.join(name);
        std::fs::create_dir(&part).with_context(|| part.display().to_string())?;
    }
    let (http, https) = (free_port()?, free_port()?);
    // What memory does not keep comes from disk, past the page cache.
    let (memory, wanted) = match source {
        Source::Ssd => (16, "cH"),
        _ => (CACHE_MIB, "cR"),
    };
    let etc = dir.join("etc");
    let records = format!(
        "{SETTINGS}
CONFIG proxy.config.http.server_ports STRING {http}:ip-in=127.0.0.1 {https}:ip-in=127.0.0.1:ssl
CONFIG proxy.config.cache.ram_cache.size INT {}
CONFIG proxy.config.body_factory.template_sets_dir STRING {}
CONFIG proxy.config.ssl.server.cert.path STRING /
CONFIG proxy.config.ssl.server.private_key.path STRING /
CONFIG proxy.config.ssl.server.TLSv1_3.cipher_suites STRING {}
",
        memory << 20,
        world.peers.join("ats/etc/trafficserver/body_factory").display(),
        world.cipher,
    );
    let certificate = format!(
        "dest_ip=* ssl_cert_name={} ssl_key_name={}\n",
        world.cert.display(),
        world.key.display()
    );
    write(&etc.join("records.config"), &records)?;
    write(&etc.join("remap.config"), &format!("map / http://{}/\n", world.origin))?;
    write(&etc.join("storage.config"), &format!("{} {CACHE_MIB}M\n", dir.join("cache").display()))?;
    write(&etc.join("ssl_multicert.config"), &certificate)?;
    let allow =
        "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n";
    write(&etc.join("ip_allow.yaml"), allow)?;
    write(&dir.join("runroot.yaml"), &layout(&dir))?;
    let root = format!("--run-root={}", dir.join("runroot.yaml").display());
    world.start(Start {
        name: format!("trafficserver {}", server.version("-V")?),
        dir: &dir,
        shards: 1,
        arguments: server.with(&[&root]),
        envs: envs(),
        http,
        https,
        cases: vec![Case::H1, Case::H1Tls, Case::H2Tls],
        hit: ("via", wanted),
    })
}

/// Where it finds and puts everything.
fn layout(dir: &Path) -> String {
    let place = |key: &str, name: &str| format!("{key}: {}\n", dir.join(name).display());
    let mut text = format!("prefix: {0}\nexec_prefix: {0}\n", dir.display());
    for (key, name) in [
        ("bindir", "share"),
        ("sbindir", "share"),
        ("sysconfdir", "etc"),
        ("datadir", "share"),
        ("includedir", "share"),
        ("libdir", "share"),
        ("libexecdir", "share"),
        ("localstatedir", "run"),
        ("runtimedir", "run"),
        ("logdir", "logs"),
        ("cachedir", "cache"),
    ] {
        text += &place(key, name);
    }
    text
}
