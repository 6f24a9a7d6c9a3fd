//! The client's country: from the operator's table of networks and the address that the
//! connection comes from, never from what the client says.

use crate::Error;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

/// A larger table is refused, in bytes: the most networks, with a comment to each.
const TABLE_BYTES_MAX: u64 = 256 << 20;
/// More networks are refused: the whole Internet's tables have some 2 million. Each takes some
/// 50 bytes of memory.
const NETWORKS_MAX: usize = 5_000_000;
/// A longer line is a mistake, in bytes: the longest network and a country take 46.
const LINE_BYTES_MAX: usize = 256;

/// A country: two capital letters (ISO 3166-1 alpha-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl FromStr for Country {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok(Self([*a, *b])),
            _ => Err(format!("{text:?}: expected two capital letters, as DE")),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("??"))
    }
}

/// Networks and their countries; the longest prefix that holds an address decides.
#[derive(Debug, Default)]
pub struct Networks {
    count: usize,
    /// By prefix length; addresses are those of the networks.
    v4: BTreeMap<u8, HashMap<IpAddr, Country>>,
    v6: BTreeMap<u8, HashMap<IpAddr, Country>>,
}

impl Networks {
    /// Reads a table: lines of `network,country`. Empty lines, lines that begin with `#` and
    /// the heading `network,country` are skipped.
    ///
    /// # Errors
    /// [`Error::Networks`] with file, line, key and what was expected.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let mut text = String::new();
        // What the file says of its size may be wrong by the time it is read.
        let mut file = File::open(path).map_err(read)?.take(TABLE_BYTES_MAX + 1);
        file.read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > TABLE_BYTES_MAX {
            let text = format!("a table has at most {TABLE_BYTES_MAX} bytes");
            return Err(read(std::io::Error::other(text)));
        }
        Self::parse(path, &text)
    }

    /// Parses the text of the file at `path` (named in errors only).
    ///
    /// # Errors
    /// [`Error::Networks`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let mut networks = Self::default();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line == "network,country" {
                continue;
            }
            networks.add(line).map_err(|message| Error::Networks {
                path: path.to_owned(),
                line: n + 1,
                message,
            })?;
        }
        Ok(networks)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("{} bytes: a line has at most {LINE_BYTES_MAX}", line.len()));
        }
        if self.count >= NETWORKS_MAX {
            return Err(format!("a table has at most {NETWORKS_MAX} networks"));
        }
        let (network, country) = line
            .split_once(',')
            .ok_or_else(|| "expected network,country, as 192.0.2.0/24,DE".to_owned())?;
        let net: IpNet = network.trim().parse().map_err(|_| {
            format!("network {network:?}: expected as 192.0.2.0/24 or 2001:db8::/32")
        })?;
        if net.addr() != net.network() {
            return Err(format!(
                "network {network:?}: expected its first address, {}",
                net.trunc()
            ));
        }
        // Addresses are looked up as IPv4 where they are: such a network would never match.
        if net.prefix_len() >= 96 && net.network().to_canonical().is_ipv4() && !net.addr().is_ipv4()
        {
            return Err(format!("network {network:?}: expected an IPv4 network, as 192.0.2.0/24"));
        }
        let country = country.trim().parse().map_err(|error| format!("country {error}"))?;
        let family = if net.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        match family.entry(net.prefix_len()).or_default().insert(net.network(), country) {
            None => {
                self.count += 1;
                Ok(())
            }
            Some(_) => Err(format!("network {network:?} stands twice")),
        }
    }

    /// The country of an address, if its network is in the table.
    #[must_use]
    pub fn country(&self, addr: IpAddr) -> Option<Country> {
        let addr = addr.to_canonical();
        let family = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        family.iter().rev().find_map(|(length, networks)| {
            let net = IpNet::new(addr, *length).ok()?;
            networks.get(&net.network()).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Networks, Error> {
        Networks::parse(Path::new("networks.csv"), text)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let table = "network,country\n# home\n10.0.0.0/8,DE\n10.1.0.0/16,AT\n\n10.1.2.3/32,FR\n\
                     2001:db8::/32,CH\n2001:db8:1::/48,IT\n";
        let networks = parse(table).unwrap();
        let of = |addr: &str| networks.country(addr.parse().unwrap()).map(|c| c.to_string());
        assert_eq!(of("10.9.9.9").as_deref(), Some("DE"));
        assert_eq!(of("10.1.9.9").as_deref(), Some("AT"));
        assert_eq!(of("10.1.2.3").as_deref(), Some("FR"));
        assert_eq!(of("::ffff:10.1.2.3").as_deref(), Some("FR"));
        assert_eq!(of("2001:db8::1").as_deref(), Some("CH"));
        assert_eq!(of("2001:db8:1::1").as_deref(), Some("IT"));
        assert_eq!(of("11.0.0.1"), None);
        assert_eq!(of("2001:db9::1"), None);
        assert_eq!(
            parse("0.0.0.0/0,US").unwrap().country("1.2.3.4".parse().unwrap()),
            "US".parse().ok()
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let errors: Vec<String> = [
            "10.0.0.0/8",
            "10.0.0.0/8,DE\n10.0.0.0/33,DE",
            "10.0.0.1/8,DE",
            "10.0.0.0/8,de",
            "10.0.0.0/8,DE,1",
            "10.0.0.0/8,DE\n\n10.0.0.0/8,AT",
            "home,DE",
            "::ffff:10.0.0.0/104,DE",
        ]
        .iter()
        .map(|text| parse(text).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn a_table_out_of_proportion_is_refused() {
        let long = format!("10.0.0.0/8,{}", "D".repeat(LINE_BYTES_MAX));
        let error = parse(&long).unwrap_err().to_string();
        assert_eq!(error, "networks.csv:1: 267 bytes: a line has at most 256");
        let mut full = Networks { count: NETWORKS_MAX - 1, ..Networks::default() };
        full.add("10.0.0.0/8,DE").unwrap();
        let error = full.add("11.0.0.0/8,DE").unwrap_err();
        assert_eq!(error, "a table has at most 5000000 networks");
        let folder = tempfile::tempdir().unwrap();
        let sparse = folder.path().join("sparse");
        File::create(&sparse).unwrap().set_len(TABLE_BYTES_MAX + 2).unwrap();
        let error = Networks::load(&sparse).unwrap_err().to_string();
        assert!(error.ends_with("a table has at most 268435456 bytes"), "{error}");
    }

    fn load(bytes: &[u8]) -> Result<Networks, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Networks::load(file.path())
    }

    fn any_line() -> impl Strategy<Value = String> {
        prop_oneof![
            (any::<[u8; 4]>(), 0..40_u8, "[A-Z]{1,3}").prop_map(|(ip, length, country)| {
                format!("{}/{length},{country}", std::net::Ipv4Addr::from(ip))
            }),
            (any::<IpAddr>(), 0..140_u8).prop_map(|(ip, length)| {
                let net = IpNet::new(ip, length).map(|net| net.trunc().to_string());
                format!("{},DE", net.unwrap_or_default())
            }),
            "[#0-9a-f.:/,A-Z \\t]{0,40}",
            Just("network,country".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = load(&bytes);
        }

        /// Lines that are nearly good, each of which costs at most one network.
        #[test]
        fn a_table_holds_no_more_than_its_lines(
            lines in proptest::collection::vec(any_line(), 0..20),
            ask in any::<IpAddr>(),
        ) {
            if let Ok(networks) = load(lines.join("\n").as_bytes()) {
                let held: usize = [&networks.v4, &networks.v6]
                    .iter()
                    .flat_map(|family| family.values())
                    .map(HashMap::len)
                    .sum();
                prop_assert_eq!(held, networks.count);
                prop_assert!(held <= lines.len());
                let _ = networks.country(ask);
            }
            // One good line alone: the whole of its network is in its country.
            for line in &lines {
                if let Ok(networks) = parse(line)
                    && networks.count == 1
                {
                    let net: IpNet = line.split(',').next().unwrap().trim().parse().unwrap();
                    for ip in [net.network(), net.broadcast()] {
                        // IPv4 in IPv6's clothes is looked up as IPv4.
                        if ip.to_canonical() == ip {
                            prop_assert!(networks.country(ip).is_some(), "{}: {}", line, ip);
                        }
                    }
                }
            }
        }
    }
}
