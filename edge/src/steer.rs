//! The steering manifest that this edge answers from its view of the fleet.

use crate::serve::Edge;
use manifests::steering::Steer;
use model::fleet::{EdgeState, EdgeView};
use model::rank;
use model::route::Route;
use std::collections::HashSet;

/// Players ask again after this long, in seconds: how soon a play moves off an edge that drains.
pub const TTL_S: u32 = 30;

/// The manifest for a play at this edge. The edge itself comes first while it is well: it does
/// not know who else holds the title, so it does not send a play away that the control plane
/// has placed here. The reload URI leads to the control plane, which knows.
pub fn answer(edge: &Edge, view: &EdgeView, route: &Route<'_>, scheme: &'static str) -> String {
    let mut ranked: Vec<&EdgeState> = rank::rank(&view.edges, &HashSet::new(), &route.title);
    let here = ranked.iter().position(|state| state.id == edge.id && state.load < rank::LOAD_MAX);
    if let Some(here) = here {
        let own = ranked.remove(here);
        ranked.insert(0, own);
    }
    let control = view.control_plane_url.trim_end_matches('/');
    let reload_uri = format!(
        "{control}/v1/steering/~{}{}?base={}&scheme={scheme}",
        route.token, route.path, edge.id
    );
    manifests::steering::render(&Steer {
        base: &edge.id,
        scheme,
        ranked: &ranked,
        reload_uri: &reload_uri,
        ttl_s: TTL_S,
    })
}
