//! How a node and others reach each other: where it listens, and what hides or shows it.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Layer, Reach};
use crate::cli::failure::Failure;
use crate::net::SwarmKey;

/// The port for TCP and QUIC, unless told otherwise.
const PORT: u16 = 4477;
/// The most bytes that are read of a swarm key; the usual file has about 100.
const LARGEST: u64 = 4096;

/// Where a node listens unless told otherwise: at all addresses, over TCP and, where no swarm key hides it, QUIC.
pub(super) fn usual(hidden: bool, ipv6: bool) -> Vec<String> {
    let ips = ["/ip4/0.0.0.0", "/ip6/::"].into_iter().take(if ipv6 { 2 } else { 1 });
    let of_ip = |ip: &str| {
        let tcp = format!("{ip}/tcp/{PORT}");
        let quic = format!("{ip}/udp/{PORT}/quic-v1");
        [Some(tcp), Some(quic).filter(|_| !hidden)].into_iter().flatten().collect::<Vec<_>>()
    };
    ips.flat_map(of_ip).collect()
}

/// What the layers say of it together.
///
/// # Errors
/// Exit status 2 when the swarm key cannot be read, or when something else would show what it hides.
pub(super) fn of(layer: &Layer) -> Result<Reach, Failure> {
    let swarm_key = layer.swarm_key.as_deref().map(read_key).transpose()?;
    let reach = Reach {
        announce: layer.announce.clone().unwrap_or_default(),
        swarm_key,
        mdns: layer.mdns.unwrap_or_default(),
        relay: layer.relay.unwrap_or(true),
    };
    if swarm_key.is_none() {
        return Ok(reach);
    }
    if reach.mdns {
        return Err(Failure::usage("mdns tells everybody on the LAN of this node, which swarm_key is to hide")
            .hint("leave one of the two out"));
    }
    let told = [("listen", &layer.listen), ("bootstrap", &layer.bootstrap), ("announce", &layer.announce)];
    for (key, addresses) in told {
        if let Some(quic) = addresses.iter().flatten().find(|address| address.contains("/quic")) {
            return Err(Failure::usage(format!("{key} names {quic}, and swarm_key covers TCP only"))
                .hint("leave out the addresses with /quic-v1: the node would be seen there"));
        }
    }
    Ok(reach)
}

fn read_key(path: &Path) -> Result<SwarmKey, Failure> {
    let cannot = || format!("cannot read the swarm key {}", path.display());
    let failed = |error: std::io::Error| Failure::usage(cannot()).because(&error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::usage(format!("the swarm key {} has mode {mode:o}: others can read it", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(failed)?;
    text.parse().map_err(|error| {
        Failure::usage(cannot()).because(&error).hint("make one as the README shows, under \"Behind routers\"")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn complaint(layer: &Layer) -> String {
        of(layer).expect_err("refused").text(crate::cli::screen::Screen::PLAIN)
    }

    fn keyed(dir: &Path) -> Layer {
        let path = dir.join("swarm.key");
        std::fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5a".repeat(32))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Layer { swarm_key: Some(path), ..Layer::default() }
    }

    #[test]
    fn a_host_listens_by_all_it_has_and_what_a_key_covers() {
        let all = usual(false, true);
        assert_eq!(all.len(), 4);
        assert!(all.contains(&"/ip6/::/udp/4477/quic-v1".to_owned()), "{all:?}");
        assert_eq!(usual(true, true), ["/ip4/0.0.0.0/tcp/4477", "/ip6/::/tcp/4477"]);
        assert_eq!(usual(true, false), ["/ip4/0.0.0.0/tcp/4477"]);
    }

    #[test]
    fn a_swarm_key_is_read_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let layer = keyed(dir.path());
        assert!(of(&layer).unwrap().swarm_key.is_some());
        let path = layer.swarm_key.clone().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(complaint(&layer).contains("mode 640"), "{}", complaint(&layer));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "5a5a").unwrap();
        assert!(complaint(&layer).contains("does not begin"), "{}", complaint(&layer));
        std::fs::remove_file(&path).unwrap();
        assert!(complaint(&layer).contains("cannot read"), "{}", complaint(&layer));
    }

    #[test]
    fn nothing_else_shows_what_a_swarm_key_hides() {
        let dir = tempfile::tempdir().unwrap();
        let quic = || Some(vec!["/ip4/0.0.0.0/udp/4477/quic-v1".to_owned()]);
        assert!(complaint(&Layer { listen: quic(), ..keyed(dir.path()) }).contains("TCP only"));
        assert!(complaint(&Layer { bootstrap: quic(), ..keyed(dir.path()) }).contains("bootstrap names"));
        assert!(complaint(&Layer { mdns: Some(true), ..keyed(dir.path()) }).contains("mdns"));
        let open = Layer { listen: quic(), mdns: Some(true), ..Layer::default() };
        assert!(of(&open).unwrap().mdns);
    }
}
