//! Varnish, which is called Vinyl Cache since its version 9: HTTP/1.1 without TLS, all objects
//! in memory. The log in shared memory stays on, as it does where Varnish is run; nobody reads
//! it.

use super::{envs, installed, write};
use crate::cases::{Case, Source};
use crate::servers::{CACHE_MIB, Running, Start, World, free_port};
use anyhow::{Result, bail};

pub fn start(world: &World, source: Source) -> Result<Running> {
    if matches!(source, Source::Ssd | Source::Planned) {
        bail!("Varnish's cache is in memory; its file storage is a memory map, too");
    }
    let varnish = installed(world, "varnish", "vinyld")?;
    let dir = world.folder(&format!("varnish-{}", source.name()))?;
    let http = free_port()?;
    let vcl = format!(
        r#"vcl 4.1;
backend origin {{ .host = "{}"; .port = "{}"; }}
sub vcl_backend_response {{ set beresp.ttl = 1d; }}
sub vcl_deliver {{ if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }} }}
"#,
        world.origin.ip(),
        world.origin.port(),
    );
    let file = dir.join("bench.vcl");
    write(&file, &vcl)?;
    let (file, work) = (file.display().to_string(), dir.join("work").display().to_string());
    let (listen, memory) = (format!("127.0.0.1:{http}"), format!("malloc,{CACHE_MIB}m"));
    let mut words =
        vec!["-F", "-j", "none", "-n", &work, "-a", &listen, "-s", &memory, "-f", &file];
    // One core: one pool of threads, which are there before they are needed. The compiler of
    // this machine makes what this machine can load.
    for parameter in [
        "thread_pools=1",
        "thread_pool_min=300",
        "thread_pool_max=5000",
        "timeout_idle=3600",
        "timeout_linger=1",
        "nuke_limit=1000",
        "cc_command=exec cc -O2 -fPIC -shared -Wl,-x -o %o %s",
    ] {
        words.extend(["-p", parameter]);
    }
    world.start(Start {
        name: format!("varnish {}", varnish.version("-V")?),
        dir: &dir,
        shards: 1,
        arguments: varnish.with(&words),
        envs: envs(),
        http,
        https: http,
        cases: vec![Case::H1],
        hit: ("x-cache", "HIT"),
    })
}
