//! The nodes of a history: an edge alone, or one below two parents; how they end and come back.

use super::process::{Process, Role};
use super::{SSD_BYTES, Ssd, World};
use crate::common::nodes::free_url;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::path::Path;

/// Which nodes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Alone,
    /// An edge, and two parents between it and the origin, which may be siblings.
    Tree,
}

/// Whether nodes are siblings of each other.
fn are_siblings(role: &Role) -> bool {
    !role.siblings.is_empty()
}

impl Shape {
    /// The nodes, from the one that is below all others, each with a folder of its own in `dir`.
    pub fn roles(self, seed: u64, dir: &Path, origin: &str) -> Vec<Role> {
        if self == Self::Alone {
            return vec![Role::alone("edge-a", dir, origin)];
        }
        let ids = ["region-1", "region-2"];
        let peers = ids.map(|id| (id.to_owned(), free_url()));
        let are_siblings = (seed / 4 + seed) % 2 == 1;
        let siblings = if are_siblings { peers.to_vec() } else { Vec::new() };
        let parent = |(id, url): &(String, String)| Role {
            peer_listen: Some(url.clone()),
            siblings: siblings.clone(),
            ..Role::alone(id, &dir.join(id), origin)
        };
        let edge = Role::alone("edge-a", &dir.join("edge-a"), origin);
        let edge = Role { parents: peers.to_vec(), ..edge };
        std::iter::once(edge).chain(peers.iter().map(parent)).collect()
    }

    /// What nodes find on their disks.
    pub(super) fn ssds(self, rng: &mut StdRng, nodes: usize) -> Vec<Ssd> {
        let all = [Ssd::None, Ssd::Empty, Ssd::Full, Ssd::Full];
        (0..nodes).map(|_| *all.choose(rng).unwrap()).collect()
    }
}

impl Role {
    /// With this on its disk.
    pub(super) fn with(self, ssd: Ssd, rng: &mut StdRng) -> Self {
        Self {
            ssd: if ssd == Ssd::None { 0 } else { SSD_BYTES },
            // A copy is in the page cache.
            ssd_direct: ssd == Ssd::Empty && rng.random_bool(0.5),
            ..self
        }
    }
}

impl World {
    /// A node that runs.
    pub(super) fn any_node(&mut self) -> usize {
        if self.edges.len() == 1 || self.rng.random_bool(0.6) {
            return 0;
        }
        let running: Vec<_> = (0..self.edges.len()).filter(|n| self.edges[*n].is_some()).collect();
        *running.choose(&mut self.rng).unwrap()
    }

    /// A node ends, in order or not, whatever it is doing, and another one takes over what it
    /// left.
    pub(super) async fn restart(&mut self) {
        let node = self.any_node();
        self.end(node).await;
        self.come_back(node).await;
    }

    /// A parent ends, and stays away until this is called again with it.
    pub(super) async fn leave_or_come_back(&mut self) {
        let parent = self.rng.random_range(1..self.edges.len());
        match self.edges[parent] {
            Some(_) => self.end(parent).await,
            None => {
                self.come_back(parent).await;
                self.scene.tally.add("parents that came back", 1);
            }
        }
    }

    async fn end(&mut self, node: usize) {
        let process = self.edges[node].take().unwrap();
        self.scene.count_evictions(&process.place).await;
        let what = if node == 0 { "edges" } else { "parents" };
        if self.rng.random_bool(0.6) {
            process.kill().await;
            self.scene.tally.add(format!("{what} killed"), 1);
        } else {
            process.stop(|| self.scene.go_on()).await;
            self.scene.tally.add(format!("{what} stopped"), 1);
        }
    }

    async fn come_back(&mut self, node: usize) {
        let role = &self.roles[node];
        // What comes from other nodes, the origin has not sent anew.
        let sent = (self.edges.len() == 1).then(|| self.scene.sent());
        let process = Process::start(role, sent).await;
        // Half of them are asked before they know what is on their SSD.
        if role.ssd > 0 && self.rng.random_bool(0.5) {
            process.ssd_is_up().await;
        }
        self.scene.nodes[node].moved(&process.place);
        self.edges[node] = Some(process);
    }

    /// Nobody is away any more.
    pub(super) async fn all_come_back(&mut self) {
        for node in 0..self.edges.len() {
            if self.edges[node].is_none() {
                self.come_back(node).await;
            }
        }
    }

    /// Ends all, those below first, once nothing is left in them that clients have caused.
    pub(super) async fn end_all(&mut self) {
        for node in 0..self.edges.len() {
            // Siblings keep connections with each other.
            let may_be_connected = are_siblings(&self.roles[node]);
            self.nothing_is_left(node, may_be_connected).await;
            let process = self.edges[node].take().unwrap();
            self.scene.count_evictions(&process.place).await;
            process.kill().await;
        }
    }
}
