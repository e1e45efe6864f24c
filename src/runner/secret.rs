//! Texts that nobody but who needs them may read.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A token, key or configuration. Its `Debug` says nothing of it, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Never for a log, an argument or a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret is kept on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that only its owner can read. A line end at its end is not part of the secret.
    File(PathBuf),
    /// A variable of the node's environment.
    Variable(String),
}

/// The most bytes of a secret: GitHub's limit.
const MOST: u64 = 48 * 1024;

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence without the secret in it.
    pub fn read(&self) -> Result<Secret, String> {
        let text = match self {
            Self::Variable(name) => {
                let found = std::env::var(name);
                found.map_err(|_| format!("the node's environment has no variable {name} of UTF-8 text"))?
            }
            Self::File(path) => {
                let fault = |error: std::io::Error| format!("reading the secret in {}: {error}", path.display());
                let file = std::fs::File::open(path).map_err(fault)?;
                let mode = file.metadata().map_err(fault)?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(format!(
                        "others than its owner may use the secret in {}: say `chmod 600 {}`",
                        path.display(),
                        path.display()
                    ));
                }
                let mut text = String::new();
                file.take(MOST + 1).read_to_string(&mut text).map_err(fault)?;
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                text
            }
        };
        if text.len() as u64 > MOST {
            Err(format!("a secret has more than {MOST} bytes"))
        } else {
            Ok(Secret::new(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_printed() {
        let secret = Secret::new("hunter2".to_owned());
        assert!(!format!("{secret:?} {:#?}", Some(&secret)).contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        std::fs::write(&path, "line\nhunter2\n").unwrap();
        let source = SecretSource::File(path.clone());
        let may = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        may(0o640);
        assert!(source.read().unwrap_err().contains("chmod 600"));
        may(0o600);
        assert_eq!(source.read(), Ok(Secret::new("line\nhunter2".to_owned())));
        std::fs::remove_file(&path).unwrap();
        assert!(source.read().is_err());
        assert!(SecretSource::Variable("RUNMESH_NO_SUCH".to_owned()).read().unwrap_err().contains("RUNMESH_NO_SUCH"));
    }
}
