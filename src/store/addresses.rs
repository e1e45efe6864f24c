//! Where other members were reached last: `peers.txt`, one multiaddr a line. A hint, never a right.

use super::dir::{DataDir, HeldDir};
use super::error::StoreError;

const FILE: &str = "peers.txt";

impl DataDir {
    /// The addresses kept last; none where there is no such file.
    ///
    /// # Errors
    /// [`StoreError::File`] when it cannot be read, [`StoreError::Exposed`] when others can.
    pub fn addresses(&self) -> Result<Vec<String>, StoreError> {
        let text = self.read_private(FILE)?.unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(lines.map(str::to_owned).collect())
    }
}

impl HeldDir {
    /// Replaces the kept addresses, on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::File`] or [`StoreError::Full`] when it cannot be written; what was there before then stands.
    pub fn keep_addresses(&self, addresses: &[String]) -> Result<(), StoreError> {
        let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        self.write_private(FILE, &format!("# Kept by runmesh: where other members were reached last.\n{lines}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back() {
        let dir = tempfile::tempdir().expect("directory");
        let held = DataDir::open(dir.path()).and_then(DataDir::hold).expect("held");
        assert_eq!(held.addresses().expect("readable"), Vec::<String>::new());
        let kept = ["/ip4/10.0.0.1/tcp/1/p2p/x".to_owned(), "/dns/a.example/tcp/2".to_owned()];
        held.keep_addresses(&kept).expect("kept");
        assert_eq!(held.addresses().expect("readable"), kept);
    }
}
