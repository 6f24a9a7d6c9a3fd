//! The secrets of the data directory: the key that signs play tokens, and the credentials that
//! callers show. Made on first start, readable by their owner alone, never logged.

use crate::Error;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use token::Signer;

/// A shorter credential could be guessed.
pub(crate) const CREDENTIAL_BYTES_MIN: usize = 16;
/// A longer credential is a mistake.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 512;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// May do everything.
    Operator,
    /// An app that asks for playback.
    App,
    /// An edge.
    Edge,
}

/// Where credentials lie, if not in the data directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialFiles {
    pub(crate) operator: Option<PathBuf>,
    pub(crate) app: Option<PathBuf>,
    pub(crate) edge: Option<PathBuf>,
}

/// The three credentials.
pub(crate) struct Credentials {
    operator: String,
    app: String,
    edge: String,
}

impl Credentials {
    /// Reads the credentials, making those of the data directory that are missing.
    pub(crate) fn open(data_dir: &Path, files: &CredentialFiles) -> Result<Self, Error> {
        let folder = data_dir.join("credentials");
        let one = |given: &Option<PathBuf>, name: &str| match given {
            Some(path) => read_credential(path),
            None => {
                let path = folder.join(name);
                make_folder(&folder)?;
                let secret = hex::encode(rand::random::<[u8; 32]>());
                create(&path, format!("{secret}\n").as_bytes())?;
                read_credential(&path)
            }
        };
        Ok(Self {
            operator: one(&files.operator, "operator")?,
            app: one(&files.app, "app")?,
            edge: one(&files.edge, "edge")?,
        })
    }

    /// Whose credential this is. Takes as long for a wrong one as for a right one.
    pub(crate) fn role(&self, shown: &str) -> Option<Role> {
        let is =
            |secret: &str| verify_slices_are_equal(secret.as_bytes(), shown.as_bytes()).is_ok();
        let (operator, app, edge) = (is(&self.operator), is(&self.app), is(&self.edge));
        match (operator, app, edge) {
            (true, _, _) => Some(Role::Operator),
            (_, true, _) => Some(Role::App),
            (_, _, true) => Some(Role::Edge),
            _ => None,
        }
    }
}

/// The signing key of the data directory, made if it is missing.
pub(crate) fn signing_key(data_dir: &Path) -> Result<Signer, Error> {
    let path = data_dir.join("signing-key.pkcs8");
    let key = |source| Error::Key { path: path.clone(), source };
    if !path.exists() {
        create(&path, &Signer::generate().map_err(key)?.pkcs8())?;
    }
    let der = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    Signer::from_pkcs8(&der).map_err(key)
}

/// Makes a folder that its owner alone may enter.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Writes a secret whole, unless the file is there.
fn create(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let whole = || {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:016x}", rand::random::<u64>()));
        let half = PathBuf::from(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Two processes that start at once: the first one's stays.
        let linked = std::fs::hard_link(&half, path);
        std::fs::remove_file(&half)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
        }
    };
    whole().map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn read_credential(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let secret = text.trim();
    let length = CREDENTIAL_BYTES_MIN..=CREDENTIAL_BYTES_MAX;
    if length.contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(secret.to_owned());
    }
    Err(Error::Credential { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_made_once_and_are_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = CredentialFiles::default();
        let first = Credentials::open(folder.path(), &files).unwrap();
        let again = Credentials::open(folder.path(), &files).unwrap();
        assert_eq!(first.operator, again.operator);
        assert_eq!(again.role(&first.operator), Some(Role::Operator));
        assert_eq!(again.role(&first.app), Some(Role::App));
        assert_eq!(again.role(&first.edge), Some(Role::Edge));
        assert_eq!(again.role(""), None);
        assert_eq!(again.role(&first.app[1..]), None);
        let key = signing_key(folder.path()).unwrap().public();
        assert_eq!(signing_key(folder.path()).unwrap().public(), key);
        for name in
            ["credentials/operator", "credentials/app", "credentials/edge", "signing-key.pkcs8"]
        {
            let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_bad_secret_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app");
        for bad in ["", "short", "two words and some more", "äääääääääääääääääääää"]
        {
            std::fs::write(&path, bad).unwrap();
            let files = CredentialFiles { app: Some(path.clone()), ..CredentialFiles::default() };
            let error = Credentials::open(folder.path(), &files).err().unwrap().to_string();
            assert!(error.contains("app: expected one line of 16"), "{error}");
        }
        std::fs::write(folder.path().join("signing-key.pkcs8"), "rubbish").unwrap();
        let error = signing_key(folder.path()).unwrap_err().to_string();
        assert!(error.contains("signing-key.pkcs8: not a P-256"), "{error}");
    }
}
