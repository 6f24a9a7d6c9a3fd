//! The peers, each set up as one who runs it for a living would: one worker on the same core,
//! the same cache, no access log, long-lived connections, the options for large files on.
//! docs/performance.md tells why each stands as it does.

mod trafficserver;
mod varnish;

use crate::cases::{Case, Source};
use crate::servers::{CACHE_MIB, Running, Start, World, free_port};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// All peers that can be named.
pub const PEERS: [&str; 5] = ["nginx", "haproxy", "caddy", "varnish", "ats"];

/// Starts a peer, or tells why it can't be measured here.
pub fn start(world: &World, name: &str, source: Source) -> Result<Running> {
    match name {
        "nginx" => nginx(world, source),
        "haproxy" => haproxy(world, source),
        "caddy" => caddy(world, source),
        "varnish" => varnish::start(world, source),
        "ats" => trafficserver::start(world, source),
        _ => bail!("expected one of {}", PEERS.join(", ")),
    }
}

/// A program of another Debian release, run with that release's libraries.
struct Installed {
    arguments: Vec<String>,
}

/// `system` is the folder of a debootstrapped Debian.
fn installed(world: &World, system: &str, program: &str) -> Result<Installed> {
    let root = world.peers.join(system);
    let binary: Option<PathBuf> = ["usr/sbin", "usr/bin"]
        .into_iter()
        .map(|dir| root.join(dir).join(program))
        .find(|path| path.is_file());
    let binary = binary.with_context(|| format!("{program} is not in {}", root.display()))?;
    let text = |path: PathBuf| path.display().to_string();
    // Of the two architectures that Debian has these peers for and we know.
    for (loader, libraries) in [
        ("lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
        ("lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
    ] {
        if root.join(loader).exists() {
            // Traffic Server has libraries of its own.
            let own = root.join("usr/lib/trafficserver");
            let path = format!("{}:{}", text(root.join(libraries)), text(own));
            let arguments =
                vec![text(root.join(loader)), "--library-path".into(), path, text(binary)];
            return Ok(Installed { arguments });
        }
    }
    bail!("{}: no loader of a known architecture", root.display())
}

impl Installed {
    fn with(&self, arguments: &[&str]) -> Vec<String> {
        let more = arguments.iter().map(|&argument| argument.to_owned());
        self.arguments.iter().cloned().chain(more).collect()
    }

    /// What it says of its version.
    fn version(&self, flag: &str) -> Result<String> {
        let all = self.with(&[flag]);
        let out = Command::new(&all[0]).args(&all[1..]).output()?;
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let word = text.split([' ', '/', '\n', 'v', '-', '+']).find(|word| {
            word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit())
        });
        Ok(word.with_context(|| format!("no version in {text:?}"))?.to_owned())
    }
}

/// OpenSSL must not read the settings of this machine's older one.
fn envs() -> Vec<(String, String)> {
    vec![("OPENSSL_CONF".into(), "/dev/null".into())]
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// What nginx does with a request, but for requests to files.
const PROXY: &str = r#"
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffers 16 64k;
      proxy_buffer_size 16k;
      proxy_busy_buffers_size 512k;
      proxy_cache all;
      proxy_cache_key $uri;
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
      add_header X-Cache $upstream_cache_status;
"#;

fn nginx(world: &World, source: Source) -> Result<Running> {
    let nginx = installed(world, "sid", "nginx")?;
    let dir = world.folder(&format!("nginx-{}", source.name()))?;
    let (http, https) = (free_port()?, free_port()?);
    let files = world.dir.join("files");
    let (label, serve) = match source {
        // Its cache always goes through the page cache; only plain files can go past it, as
        // nearcast reads its disk.
        Source::Ssd | Source::Planned => (
            " (files)",
            format!(
                "root {}; directio 512; aio threads; output_buffers 2 512k; add_header X-Cache HIT;",
                files.display()
            ),
        ),
        Source::Memory | Source::Miss => ("", PROXY.to_owned()),
    };
    let config = format!(
        r#"
user root;
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 20000; multi_accept on; }}
http {{
  access_log off;
  server_tokens off;
  sendfile on;
  sendfile_max_chunk 2m;
  tcp_nopush off;
  tcp_nodelay on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  reset_timedout_connection on;
  open_file_cache max=20000 inactive=1h;
  open_file_cache_valid 1h;
  open_file_cache_min_uses 1;
  output_buffers 2 256k;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/temp;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=all:32m max_size={CACHE_MIB}m inactive=1d use_temp_path=off;
  ssl_certificate {cert};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites {cipher};
  ssl_session_cache shared:tls:10m;
  ssl_buffer_size 16k;
  http2_chunk_size 16k;
  quic_gso on;
  http3_stream_buffer_size 256k;
  upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{http} reuseport backlog=4096;
    listen 127.0.0.1:{https} ssl reuseport backlog=4096;
    listen 127.0.0.1:{https} quic reuseport;
    http2 on;
    http3 on;
    {more}
    location / {{ {serve} }}
  }}
}}
"#,
        dir = dir.display(),
        cert = world.cert.display(),
        key = world.key.display(),
        cipher = world.cipher,
        origin = world.origin,
        more = world.nginx,
    );
    let file = dir.join("nginx.conf");
    write(&file, &config)?;
    let (config, prefix) = (file.display().to_string(), dir.display().to_string());
    world.start(Start {
        name: format!("nginx {}{label}", nginx.version("-v")?),
        dir: &dir,
        shards: 1,
        arguments: nginx.with(&["-e", "stderr", "-p", &prefix, "-c", &config]),
        envs: envs(),
        http,
        https,
        cases: Case::ALL.to_vec(),
        hit: ("x-cache", "HIT"),
    })
}

fn haproxy(world: &World, source: Source) -> Result<Running> {
    if matches!(source, Source::Ssd | Source::Planned) {
        bail!("HAProxy's cache is in memory only");
    }
    let haproxy = installed(world, "sid", "haproxy")?;
    let dir = world.folder(&format!("haproxy-{}", source.name()))?;
    let (http, https) = (free_port()?, free_port()?);
    let pair = [std::fs::read(&world.cert)?, std::fs::read(&world.key)?].concat();
    std::fs::write(dir.join("pair.pem"), pair)?;
    let config = format!(
        r"
global
  maxconn 8000
  nbthread 1
  tune.bufsize 65536
  tune.idletimer 0
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites {cipher}
defaults
  mode http
  timeout client 1h
  timeout server 1h
  timeout connect 5s
  timeout http-keep-alive 1h
cache all
  total-max-size {CACHE_MIB}
  max-object-size 8388608
  max-age 86400
frontend in
  bind 127.0.0.1:{http}
  bind 127.0.0.1:{https} ssl crt {dir}/pair.pem alpn h2,http/1.1
  bind quic4@127.0.0.1:{https} ssl crt {dir}/pair.pem alpn h3
  http-request cache-use all
  http-response set-header X-Cache HIT if !{{ srv_id -m found }}
  http-response cache-store all
  default_backend origin
backend origin
  http-reuse always
  server origin {origin}
",
        dir = dir.display(),
        cipher = world.cipher,
        origin = world.origin,
    );
    let file = dir.join("haproxy.cfg");
    write(&file, &config)?;
    let config = file.display().to_string();
    world.start(Start {
        name: format!("haproxy {}", haproxy.version("-v")?),
        dir: &dir,
        shards: 1,
        arguments: haproxy.with(&["-db", "-f", &config]),
        envs: envs(),
        http,
        https,
        cases: Case::ALL.to_vec(),
        hit: ("age", ""),
    })
}

fn caddy(world: &World, source: Source) -> Result<Running> {
    if source != Source::Memory {
        bail!("Caddy has no cache of its own; its files can only stand for hits in memory");
    }
    let caddy = installed(world, "sid", "caddy")?;
    let dir = world.folder("caddy")?;
    let (http, https) = (free_port()?, free_port()?);
    let config = format!(
        r"
{{
  admin off
  auto_https off
  persist_config off
  http_port {http}
  https_port {https}
  servers {{
    protocols h1 h2 h3
  }}
}}
http://127.0.0.1:{http} {{
  root * {files}
  file_server
}}
https://127.0.0.1:{https} {{
  tls {cert} {key} {{
    protocols tls1.3
  }}
  root * {files}
  file_server
}}
",
        files = world.dir.join("files").display(),
        cert = world.cert.display(),
        key = world.key.display(),
    );
    let file = dir.join("Caddyfile");
    write(&file, &config)?;
    let config = file.display().to_string();
    let mut envs = envs();
    envs.push(("HOME".into(), dir.display().to_string()));
    envs.push(("GOMAXPROCS".into(), "1".into()));
    world.start(Start {
        name: format!("caddy {} (files)", caddy.version("version")?),
        dir: &dir,
        shards: 1,
        arguments: caddy.with(&["run", "--adapter", "caddyfile", "--config", &config]),
        envs,
        http,
        https,
        cases: Case::ALL.to_vec(),
        hit: ("etag", ""),
    })
}
