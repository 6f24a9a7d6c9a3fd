//! What this machine has, as far as settings can ask for too much of it.

use service::value::ByteSize;
use std::fs::read_to_string;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

/// Memory that processes here may take, in bytes: the machine's, or less where a cgroup (v2) says so.
/// None where that can't be read.
pub fn memory_bytes() -> Option<u64> {
    let machine = total(&read_to_string("/proc/meminfo").ok()?)?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(machine.min(allowed(Path::new("/sys/fs/cgroup"), &groups).unwrap_or(u64::MAX)))
}

/// Of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least `memory.max` of this process's group, as `/proc/self/cgroup` names it, and of those above.
fn allowed(root: &Path, groups: &str) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = root.join(group);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let limit = |group: &Path| read_to_string(group.join("memory.max")).ok()?.trim().parse().ok();
    groups.filter_map(limit).min()
}

/// Whether an address is one of this machine's. Nothing is sent.
pub fn has_address(ip: IpAddr) -> bool {
    let binds = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    // With `net.ipv4.ip_nonlocal_bind` any could be bound, also those that are nobody's (RFC 5737,
    // RFC 3849), and none can be told apart.
    let nobodys = match ip {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    ip.is_loopback() || binds(ip) && !binds(nobodys)
}

/// Whether what listens at `[::]` takes IPv4, too.
pub fn ipv6_takes_ipv4() -> bool {
    let only = read_to_string("/proc/sys/net/ipv6/bindv6only");
    only.is_ok_and(|only| only.trim() == "0")
}

/// What an operator should know where `wanted` bytes for chunks are more than there are: they are
/// taken as they fill, so the edge would start, and be killed hours later.
pub fn note(wanted: u64, has: Option<u64>) -> Option<String> {
    let has = has.filter(|has| wanted > *has)?;
    let (wanted, has) = (ByteSize(wanted), has >> 20);
    Some(format!(
        "edge.memory: {wanted} is more than the {has} MiB that processes here may take: the edge \
         will be killed when its memory fills (docs/edge.md, \"How much memory a box needs\")"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_what_the_machine_and_its_groups_allow() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total("MemTotal: many kB\n"), None);
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("a/b");
        std::fs::create_dir_all(&own).unwrap();
        let limit = |group: &str, text: &str| {
            std::fs::write(root.path().join(group).join("memory.max"), text).unwrap();
        };
        let found = || allowed(root.path(), "1:name=x:/\n0::/a/b\n");
        assert_eq!(found(), None);
        limit("a/b", "max\n");
        limit("a", "4096\n");
        assert_eq!(found(), Some(4096));
        limit("a/b", "1024\n");
        assert_eq!((found(), allowed(root.path(), "0::/\n")), (Some(1024), None));
    }

    #[test]
    fn more_than_there_is_is_told() {
        assert_eq!(note(1 << 30, Some(1 << 30)), None);
        assert_eq!(note(1 << 30, None), None);
        let told = note(900 << 30, Some(8 << 30)).unwrap();
        assert!(told.starts_with("edge.memory: 900GiB is more than the 8192 MiB"), "{told}");
    }
}
