//! What a node is called where nobody has named it.

use crate::Error;
use crate::disk;
use model::EdgeId;
use std::path::Path;

/// The file in the data folder.
const FILE: &str = "node-id";

/// The name `given`, or else one that this data folder keeps: `edge-` and 8 hexadecimal digits,
/// so that no two nodes on one way share a name. A request that has passed a node of the same
/// name is taken for a loop.
///
/// # Errors
/// When the folder can't be written, or its file holds something else.
pub fn name(given: Option<&EdgeId>, data: &Path) -> Result<EdgeId, Error> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let path = data.join(FILE);
    match std::fs::read(&path) {
        Ok(kept) => {
            let kept = std::str::from_utf8(&kept).ok().and_then(|text| text.trim().parse().ok());
            kept.ok_or_else(|| {
                let text = "it holds no node's name: remove it, or set edge.id";
                Error::file(&path, std::io::Error::other(text))
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = format!("edge-{:08x}", rand::random::<u32>());
            disk::replace(&path, name.as_bytes()).map_err(|error| Error::file(&path, error))?;
            Ok(name.parse().expect("lower case, digits and a dash are allowed"))
        }
        Err(error) => Err(Error::file(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_unless_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let given: EdgeId = "edge-a".parse().unwrap();
        assert_eq!(name(Some(&given), dir.path()).unwrap(), given);
        let first = name(None, dir.path()).unwrap();
        assert_eq!(first.as_str().len(), "edge-01234567".len());
        assert_eq!(name(None, dir.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(name(None, other.path()).unwrap(), first);
        for garbled in [&b"Not A Name"[..], b"\xff\xfe\x00"] {
            std::fs::write(dir.path().join(FILE), garbled).unwrap();
            let error = name(None, dir.path()).unwrap_err().to_string();
            assert!(error.contains("node-id: it holds no node's name: remove it"), "{error}");
        }
    }
}
