//! Which hop would be asked first, as things are: told before anything is asked.

use crate::ask::HopKind;
use crate::hop::Way;
use crate::rendezvous::{Member, Run, choose};
use crate::upstream::Upstream;
use std::sync::Arc;

impl Upstream {
    /// Of which kind the first hop is that run `number` of the object `key` would be asked of now.
    /// One that asks `by_peer` is taken for a sibling, which has named this node the owner, or for a
    /// node below: siblings are left out for both.
    #[must_use]
    pub fn foreseen(&self, key: [u8; 16], number: u64, by_peer: bool) -> HopKind {
        let site = &*self.0;
        let run = Run { key, number };
        let usable = |ways: &[Arc<Way>]| ways.iter().any(|way| way.hop.would_admit());
        if !by_peer && site.siblings.iter().any(|way| is_above(&run, way, &site.node.0.id)) {
            HopKind::Sibling
        } else if usable(&site.parents) || usable(&site.shields) {
            HopKind::Parent
        } else {
            HopKind::Origin
        }
    }
}

/// Whether a sibling that can be asked ranks above this node.
fn is_above(run: &Run, way: &Way, own: &str) -> bool {
    let member = |id, own| Member { id, load: 0, own };
    let both = [member(way.hop.id.as_str(), false), member(own, true)];
    way.hop.would_admit() && choose(run, &both) == Some(0)
}
