//! The appliance: listeners, token check, request path, cache tiers, fill, reports.
//!
//! `serve` is the life of a request, `title_site` and `proxy` the two kinds of site, `engine`
//! where a chunk comes from, `run` how the parts are put together.

mod account;
mod admin;
mod ahead;
mod apart;
mod body;
mod compress;
mod cors;
mod disk;
mod encoded;
mod engine;
mod error;
mod flights;
mod gate;
mod hygiene;
mod metrics;
mod naming;
mod object;
mod origin;
mod peer;
mod places;
mod planned;
mod prefetch;
mod proxy;
mod refused;
mod run;
mod serve;
mod settings;
mod steer;
mod tally;
mod title;
mod title_site;
mod tls;
mod verdict;
mod view;
mod whose;

pub use error::Error;
pub use run::{DRAIN_MAX, run};
pub use settings::{
    Certificate, Config, Limits, Listen, Peers, Secret, Settings, SiteConfig, SiteSettings,
    TitlesConfig, TtlSettings,
};
pub use wire::Patience;
