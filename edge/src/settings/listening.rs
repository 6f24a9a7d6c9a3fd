//! Where this node listens: each place once, and none of them a place that it asks.

use super::{Listen, Settings, machine};
use service::config::{ConfigError, all};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use upstream::hierarchy;
use url::{Host, Url};

/// All of its listeners: the key, the socket, and how it is shown.
pub(super) struct Listening(Vec<(&'static str, SocketAddr, String)>);

impl Listening {
    pub(super) fn new(listen: &[Listen], peers: &[Listen], admin: SocketAddr) -> Self {
        let of = |key: &'static str, listen: &Listen| {
            let scheme = if listen.tls { "https" } else { "http" };
            (key, listen.addr, format!("{scheme}://{}", listen.addr))
        };
        let own = listen.iter().map(|listen| of("edge.listen", listen));
        let own = own.chain(peers.iter().map(|listen| of("edge.peer-listen", listen)));
        Self(own.chain([("edge.admin", admin, admin.to_string())]).collect())
    }

    /// No listener has another's port: the start would find it in use.
    pub(super) fn apart(&self) -> Result<(), ConfigError> {
        for (place, (key, addr, shown)) in self.0.iter().enumerate() {
            if let Some((taken, other, _)) =
                self.0[..place].iter().find(|(_, other, _)| meet(*addr, *other))
            {
                let expected = format!("an address and port of its own: {taken} has {other}");
                return Err(ConfigError::value(key, shown, expected));
            }
        }
        Ok(())
    }

    /// None of what is to be asked is this node: each request would come round. Names are not
    /// looked up.
    pub(super) fn asks_others(&self, asked: &[(String, String)]) -> Result<(), ConfigError> {
        let others = asked.iter();
        let others = others.map(|(key, url)| self.is_another(key, url, &machine::has_address));
        all(others).map(drop)
    }

    fn is_another(
        &self,
        key: &str,
        url: &str,
        is_here: &dyn Fn(IpAddr) -> bool,
    ) -> Result<(), ConfigError> {
        let Some((ips, port)) = addresses(url) else { return Ok(()) };
        let is_own = |addr: &SocketAddr| {
            addr.port() == port && ips.iter().any(|ip| reaches(*ip, addr.ip(), is_here))
        };
        let own = self.0.iter().find(|(_, addr, _)| is_own(addr));
        own.map_or(Ok(()), |(own_key, _, shown)| {
            let expected = format!("another server than this edge itself: {own_key} has {shown}");
            Err(ConfigError::value(key, url, expected))
        })
    }
}

/// What is to be asked, origins and nodes: the key of each, and its URL.
pub(super) fn asked(settings: &Settings) -> Vec<(String, String)> {
    let given = settings.origin.iter().map(|url| ("edge.origin".to_owned(), url.clone()));
    let sites = settings.sites.iter().flat_map(|(host, site)| {
        let key = move |n| format!("edge.sites.\"{host}\".origins[{n}]");
        site.origins.iter().enumerate().map(move |(n, origin)| (key(n), origin.url.clone()))
    });
    let hierarchy::Settings { siblings, parents, shields, .. } = &settings.hierarchy;
    let lists = [("siblings", siblings), ("parents", parents), ("shields", shields)];
    let nodes = lists.into_iter().flat_map(|(list, peers)| {
        let key = move |n| format!("edge.hierarchy.{list}[{n}].url");
        // All siblings share one list, so it may hold this node, by its name.
        let others =
            peers.iter().enumerate().filter(|(_, peer)| settings.id.as_ref() != Some(&peer.id));
        others.map(move |(n, peer)| (key(n), peer.url.clone()))
    });
    given.chain(sites).chain(nodes).collect()
}

/// Where a URL leads to, as far as it says so itself. What is no URL is named by those who read it
/// as one.
fn addresses(url: &str) -> Option<(Vec<IpAddr>, u16)> {
    let url = Url::parse(url).ok()?;
    let ips = match url.host()? {
        Host::Ipv4(ip) => vec![ip.into()],
        Host::Ipv6(ip) => vec![ip.into()],
        // RFC 6761 section 6.3.
        Host::Domain("localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Host::Domain(_) => return None,
    };
    Some((ips, url.port_or_known_default()?))
}

/// Whether who connects to an address of this port comes to a socket that listens at `own`.
fn reaches(ip: IpAddr, own: IpAddr, is_here: &dyn Fn(IpAddr) -> bool) -> bool {
    let (ip, own) = (ip.to_canonical(), own.to_canonical());
    if ip == own {
        return true;
    }
    // Linux takes no address for the own one.
    let is_any = ip.is_unspecified();
    if own.is_unspecified() {
        let is_heard = ip.is_ipv4() == own.is_ipv4() || own.is_ipv6() && machine::ipv6_takes_ipv4();
        return is_heard && (is_any || is_here(ip));
    }
    is_any && own.is_loopback() && ip.is_ipv4() == own.is_ipv4()
}

/// Whether two sockets can't both listen. Whether `[::]` takes IPv4 as well is the system's to
/// say, and so is not reckoned with.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let ips = (one.ip(), other.ip());
    let any = ips.0.is_unspecified() || ips.1.is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (ips.0 == ips.1 || any && ips.0.is_ipv4() == ips.1.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1 is an address of this machine.
    fn check(listen: &str, url: &str) -> Result<(), ConfigError> {
        let listen = super::super::parse_listen("edge.listen", listen).unwrap();
        let listening = Listening::new(&[listen], &[], "127.0.0.1:8081".parse().unwrap());
        let here = |ip: IpAddr| ip.is_loopback() || ip == IpAddr::from([10, 0, 0, 1]);
        listening.is_another("edge.origin", url, &here)
    }

    #[test]
    fn what_leads_back_is_told_from_what_leads_elsewhere() {
        let all = "http://0.0.0.0:8080";
        for (listen, url, is_own) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("http://127.0.0.1:8080", "http://localhost:8080/films", true),
            ("http://127.0.0.1:8080", "http://0.0.0.0:8080", true),
            ("https://127.0.0.1:443", "https://127.0.0.1", true),
            ("http://[::1]:8080", "http://localhost:8080", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081", true),
            (all, "http://127.0.0.1:8080", true),
            (all, "http://127.1.2.3:8080", true),
            (all, "http://10.0.0.1:8080", true),
            (all, "http://0.0.0.0:8080", true),
            ("http://[::]:8080", "http://[::1]:8080", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8082", false),
            ("http://127.0.0.1:8080", "http://127.0.0.2:8080", false),
            ("http://127.0.0.1:8080", "http://10.0.0.1:8080", false),
            ("http://10.0.0.1:8080", "http://127.0.0.1:8080", false),
            ("http://127.0.0.1:80", "http://films.example", false),
            ("http://127.0.0.1:8080", "s3://films", false),
            (all, "http://10.0.0.2:8080", false),
            (all, "http://[::1]:8080", false),
            (all, "http://127.0.0.1:8082", false),
        ] {
            assert_eq!(check(listen, url).is_err(), is_own, "{listen} {url}");
        }
    }
}
