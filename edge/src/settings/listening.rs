//! Where this node listens: each place once, and none of them a place that it asks.

use super::{Listen, Settings, machine};
use service::config::{ConfigError, all};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use upstream::hierarchy;
use url::{Host, Url};

/// All of its listeners: the key, the socket, and how it is shown.
pub(super) struct Listening(Vec<(&'static str, SocketAddr, String)>);

/// Whether who connects to an address comes to a socket of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Never,
    /// It is an address of this machine, and the socket listens at all of them: unless something else
    /// takes what comes for that one, as a port that is forwarded, or a container's service.
    Perhaps,
    Surely,
}

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
    /// looked up. Gives what an operator should know of what may be.
    ///
    /// # Errors
    /// Names what surely is.
    pub(super) fn asks_others(
        &self,
        asked: &[(String, String)],
    ) -> Result<Vec<String>, ConfigError> {
        let others = asked.iter();
        let others = others.map(|(key, url)| self.is_another(key, url, &machine::has_address));
        Ok(all(others)?.into_iter().flatten().collect())
    }

    fn is_another(
        &self,
        key: &str,
        url: &str,
        is_here: &dyn Fn(IpAddr) -> bool,
    ) -> Result<Option<String>, ConfigError> {
        let Some((ips, port)) = addresses(url) else { return Ok(None) };
        let reach = |addr: &SocketAddr| match addr.port() == port {
            true => ips.iter().map(|ip| reaches(*ip, addr.ip(), is_here)).max(),
            false => None,
        };
        let nearest = self.0.iter().rev().max_by_key(|(_, addr, _)| reach(addr));
        let Some((own_key, addr, shown)) = nearest else { return Ok(None) };
        match reach(addr) {
            Some(Reach::Surely) => {
                let expected =
                    format!("another server than this edge itself: {own_key} has {shown}");
                Err(ConfigError::value(key, url, expected))
            }
            Some(Reach::Perhaps) => Ok(Some(format!(
                "{key}: {url} is at an address of this machine, and {own_key} has {shown}: this edge \
                 asks itself, and answers 508, unless something else takes what comes to that address"
            ))),
            Some(Reach::Never) | None => Ok(None),
        }
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
fn reaches(ip: IpAddr, own: IpAddr, is_here: &dyn Fn(IpAddr) -> bool) -> Reach {
    let (ip, own) = (ip.to_canonical(), own.to_canonical());
    if ip == own {
        return Reach::Surely;
    }
    // Linux takes no address for the own one.
    let is_any = ip.is_unspecified();
    if own.is_unspecified() {
        let is_heard = ip.is_ipv4() == own.is_ipv4() || own.is_ipv6() && machine::ipv6_takes_ipv4();
        return match is_heard {
            true if is_any || ip.is_loopback() => Reach::Surely,
            true if is_here(ip) => Reach::Perhaps,
            _ => Reach::Never,
        };
    }
    match is_any && own.is_loopback() && ip.is_ipv4() == own.is_ipv4() {
        true => Reach::Surely,
        false => Reach::Never,
    }
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
    fn check(listen: &str, url: &str) -> Result<Option<String>, ConfigError> {
        let listen = super::super::parse_listen("edge.listen", listen).unwrap();
        let listening = Listening::new(&[listen], &[], "127.0.0.1:8081".parse().unwrap());
        let here = |ip: IpAddr| ip.is_loopback() || ip == IpAddr::from([10, 0, 0, 1]);
        listening.is_another("edge.origin", url, &here)
    }

    #[test]
    fn what_leads_back_is_told_from_what_leads_elsewhere() {
        use Reach::{Never, Perhaps, Surely};
        let all = "http://0.0.0.0:8080";
        for (listen, url, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", Surely),
            ("http://127.0.0.1:8080", "http://localhost:8080/films", Surely),
            ("http://127.0.0.1:8080", "http://0.0.0.0:8080", Surely),
            ("https://127.0.0.1:443", "https://127.0.0.1", Surely),
            ("http://[::1]:8080", "http://localhost:8080", Surely),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081", Surely),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080", Surely),
            (all, "http://127.0.0.1:8080", Surely),
            (all, "http://127.1.2.3:8080", Surely),
            (all, "http://0.0.0.0:8080", Surely),
            ("http://[::]:8080", "http://[::1]:8080", Surely),
            (all, "http://10.0.0.1:8080", Perhaps),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8082", Never),
            ("http://127.0.0.1:8080", "http://127.0.0.2:8080", Never),
            ("http://127.0.0.1:8080", "http://10.0.0.1:8080", Never),
            ("http://10.0.0.1:8080", "http://127.0.0.1:8080", Never),
            ("http://127.0.0.1:80", "http://films.example", Never),
            ("http://127.0.0.1:8080", "s3://films", Never),
            (all, "http://10.0.0.2:8080", Never),
            (all, "http://[::1]:8080", Never),
            (all, "http://127.0.0.1:8082", Never),
            (all, "http://10.0.0.1:8082", Never),
        ] {
            let found = match check(listen, url) {
                Err(_) => Surely,
                Ok(note) => note.map_or(Never, |_| Perhaps),
            };
            assert_eq!(found, expected, "{listen} {url}");
        }
        let told = check(all, "http://10.0.0.1:8080").unwrap().unwrap();
        assert!(told.starts_with("edge.origin: http://10.0.0.1:8080 is "), "{told}");
        assert!(told.contains("edge.listen has http://0.0.0.0:8080"), "{told}");
    }
}
