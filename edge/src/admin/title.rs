//! What a title site's URL names, told for `nearcast explain`.

use super::explain;
use crate::object::{Object as Chunked, Passed};
use crate::serve::{Edge, TitleSite};
use crate::settings::ANY_HOST;
use crate::title::Object;
use crate::title_site;
use crate::verdict::Verdict;
use model::admin::{ChunkPlace, MediaState, TitleState};
use model::chunk;
use model::route;

/// The path of `url`, if a request for it would be the title site's.
pub(crate) fn path<'a>(edge: &Edge, url: &'a str) -> Option<&'a str> {
    edge.titles.as_ref()?;
    let (_, rest) = url.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/')?);
    let path = path.split(['?', '#']).next()?;
    let proxied = edge.sites.of(Some(host)).is_some_and(|site| &*site.name != ANY_HOST);
    (!proxied && title_site::is_titles(path)).then_some(path)
}

/// What `path` names: with a play token, which is not looked at, or without. The title's index
/// is read if it is not in memory.
///
/// # Errors
/// Says what is wrong, and what is expected.
pub(crate) async fn explain(
    edge: &Edge,
    titles: &TitleSite,
    path: &str,
) -> Result<TitleState, String> {
    // Any token does: nothing is served.
    let with_token = if path.starts_with("/t/") { format!("/~x{path}") } else { path.to_owned() };
    let route = route::parse(&with_token).map_err(|error| error.to_string())?;
    let name = (route.title.clone(), route.version);
    let (title, index) =
        titles.titles.get(&name, &Passed::default()).await.map_err(|fault| fault.to_string())?;
    let object = title.object(&route.resource);
    let media = match object.ok_or("the title has no such track or segment")? {
        Object::Manifest(..) => None,
        Object::Media { track, range, .. } => {
            let file = Chunked::track(&title, track).ok_or("the title has no such track")?;
            let place = |number: u32| place(edge.engine.at_hand(&file, number.into()));
            Some(MediaState {
                body: hex::encode(file.body),
                bytes: file.bytes,
                first: range.start,
                count: range.bytes,
                chunks: explain::runs(chunk::covering(range), place),
            })
        }
    };
    let (title, version) = (route.title.to_string(), route.version.to_string());
    Ok(TitleState { title, version, index: index.name().to_owned(), media })
}

fn place(source: Option<Verdict>) -> ChunkPlace {
    match source {
        Some(Verdict::HitMemory) => ChunkPlace::Memory,
        Some(Verdict::HitPlan) => ChunkPlace::Plan,
        Some(Verdict::HitSsd) => ChunkPlace::Disk,
        Some(Verdict::Filling) => ChunkPlace::Filling,
        _ => ChunkPlace::Absent,
    }
}
