//! The console is embedded: without its built pages there is nothing to embed.

use std::path::Path;

fn main() {
    let dist = Path::new("../console/dist");
    println!("cargo:rerun-if-changed=../console/dist");
    if !dist.join("index.html").is_file() {
        eprintln!(
            "console/dist/index.html is missing: run console/build (needs Node 18 or newer), \
             then build again"
        );
        std::process::exit(1);
    }
}
