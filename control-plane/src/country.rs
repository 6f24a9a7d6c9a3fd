//! The client's country: from the operator's table of networks and the address that the
//! connection comes from, never from what the client says.

use crate::Error;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

/// A larger table is refused, in bytes: some 10 million networks.
const TABLE_BYTES_MAX: u64 = 256 << 20;

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
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > TABLE_BYTES_MAX {
            let text = format!("{bytes} bytes; a table has at most {TABLE_BYTES_MAX}");
            return Err(read(std::io::Error::other(text)));
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(read)?)
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
        let country = country.trim().parse().map_err(|error| format!("country {error}"))?;
        let family = if net.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        match family.entry(net.prefix_len()).or_default().insert(net.network(), country) {
            None => Ok(()),
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
        ]
        .iter()
        .map(|text| parse(text).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
