//! What `mesh invite` prints and `mesh join` takes: one word to copy.
//!
//! `runmesh1` and, in base32: the length of the contents (two bytes), the contents (an `Invitation` message), and the
//! first four bytes of their SHA-256. So a ticket that was cut is told from one that was changed, and both from text that
//! never was one. White space inside is skipped: terminals and mails fold long words.

use std::fmt;
use std::str::FromStr;

use prost::Message as _;

use super::field::{array, count, size, ticket, ticket_message};
use super::limits::{MAX_ADDRESS, MAX_ADDRESSES, MAX_TICKET_TEXT};
use super::{WireError, base32, proto};
use crate::kernel::entry::Ticket;
use crate::kernel::id::{Digest, MeshId};

/// What every ticket begins with, and this version's number behind it.
const NAME: &str = "runmesh";
const VERSION: &str = "1";
/// Bytes of the checksum. It guards against accidents; against forgery the mesh key's signature does.
const CHECKSUM: usize = 4;

/// An invitation into a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub mesh: MeshId,
    /// The right to join, signed by the mesh key.
    pub ticket: Ticket,
    /// Where members can be reached: multiaddresses with `/p2p/…`. At most [`MAX_ADDRESSES`] of [`MAX_ADDRESS`] bytes
    /// are written out.
    pub addresses: Vec<String>,
}

/// Why a text is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error(
        "this is not a ticket: a ticket begins with `{NAME}{VERSION}`; copy all of what `runmesh mesh invite` printed"
    )]
    NotATicket,
    #[error(
        "the ticket holds `{0}`, which no ticket does; copy all of what `runmesh mesh invite` printed, and no more"
    )]
    Character(char),
    #[error("the ticket is cut: {0}; copy all of what `runmesh mesh invite` printed")]
    Truncated(String),
    #[error("the ticket is damaged: {0}; copy it again from what `runmesh mesh invite` printed")]
    Damaged(String),
    #[error("the ticket is of version {0}; this program reads version {VERSION}: use the same version on both hosts")]
    Version(String),
    #[error("the ticket is not signed by the key of its mesh {0}; ask for a new one")]
    NotSigned(MeshId),
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |address: &&String| address.len() <= MAX_ADDRESS;
        let message = proto::Invitation {
            mesh: self.mesh.0.to_vec(),
            ticket: Some(ticket_message(&self.ticket)),
            address: self.addresses.iter().filter(fits).take(MAX_ADDRESSES).cloned().collect(),
        };
        let contents = message.encode_to_vec();
        // The limits on addresses keep it far below 64 KiB.
        let length = u16::try_from(contents.len()).map_err(|_| fmt::Error)?;
        let all = [&length.to_be_bytes(), contents.as_slice(), &checksum(&contents)].concat();
        write!(f, "{NAME}{VERSION}{}", base32::encode(&all))
    }
}

impl FromStr for Invitation {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > MAX_TICKET_TEXT {
            return Err(TicketError::NotATicket);
        }
        let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
        let contents = contents(&text.to_ascii_lowercase())?;
        let damaged = |error: WireError| TicketError::Damaged(error.to_string());
        let message =
            proto::Invitation::decode(contents.as_slice()).map_err(|error| TicketError::Damaged(error.to_string()))?;
        let mesh = MeshId(array(&message.mesh, "the mesh id").map_err(damaged)?);
        let signed = message.ticket.ok_or_else(|| TicketError::Damaged("it holds no right to join".to_owned()))?;
        let ticket = ticket(&signed).map_err(damaged)?;
        count(message.address.len(), "addresses", MAX_ADDRESSES).map_err(damaged)?;
        for address in &message.address {
            size(address.len(), "an address", MAX_ADDRESS).map_err(damaged)?;
        }
        if !ticket.is_of(&mesh) {
            return Err(TicketError::NotSigned(mesh));
        }
        Ok(Self { mesh, ticket, addresses: message.address })
    }
}

/// The contents of a ticket's text, which has no white space and no capitals.
fn contents(text: &str) -> Result<Vec<u8>, TicketError> {
    let Some(rest) = text.strip_prefix(NAME) else {
        let begun = !text.is_empty() && NAME.starts_with(text);
        return Err(if begun {
            TicketError::Truncated("hardly anything is left of it".to_owned())
        } else {
            TicketError::NotATicket
        });
    };
    let Some(digits) = rest.strip_prefix(VERSION) else {
        let version: String = rest.chars().take_while(char::is_ascii_digit).take(9).collect();
        return Err(match (version.is_empty(), rest.is_empty()) {
            (false, _) => TicketError::Version(version),
            (true, true) => TicketError::Truncated("hardly anything is left of it".to_owned()),
            (true, false) => TicketError::NotATicket,
        });
    };
    let all = base32::decode(digits).map_err(TicketError::Character)?;
    let Some((length, rest)) = all.split_first_chunk() else {
        return Err(TicketError::Truncated("hardly anything is left of it".to_owned()));
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let whole = length + CHECKSUM;
    if rest.len() < whole {
        let here = (all.len() * 100) / (whole + 2);
        return Err(TicketError::Truncated(format!("about {here} % of it is here")));
    }
    let (contents, sum) = rest.split_at(length);
    if sum != checksum(contents) {
        return Err(TicketError::Damaged("its checksum does not agree with it".to_owned()));
    }
    Ok(contents.to_vec())
}

fn checksum(contents: &[u8]) -> [u8; CHECKSUM] {
    let digest = Digest::of(&[b"runmesh ticket text", contents]).0;
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;

    fn invitation(addresses: &[&str]) -> Invitation {
        let key = SigningKey::from_bytes(&[8; 32]);
        Invitation {
            mesh: MeshId(key.verifying_key().to_bytes()),
            ticket: Ticket::sign(&key, 7, 1_900_000_000_000),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        }
    }

    fn text() -> String {
        invitation(&["/ip4/192.168.1.10/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"]).to_string()
    }

    #[test]
    fn it_is_one_word_that_survives_folding_and_capitals() {
        let text = text();
        assert!(text.starts_with("runmesh1") && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        let folded: String = text.as_bytes().chunks(40).map(|part| String::from_utf8_lossy(part) + "\n  ").collect();
        assert_eq!(folded.parse::<Invitation>(), text.parse());
        assert_eq!(text.to_uppercase().parse::<Invitation>(), text.parse());
        assert!(text.parse::<Invitation>().is_ok());
    }

    #[test]
    fn every_cut_is_told_from_garbage() {
        let text = text();
        for end in 1..text.len() {
            let error = text[..end].parse::<Invitation>().expect_err("cut");
            assert!(matches!(error, TicketError::Truncated(_)), "{end}: {error}");
        }
    }

    #[test]
    fn other_texts_are_told_apart() {
        let parse = |text: &str| text.parse::<Invitation>().expect_err("not a ticket");
        let text = text();
        assert_eq!(parse(""), TicketError::NotATicket);
        assert_eq!(parse("hello"), TicketError::NotATicket);
        assert_eq!(parse(&text[1..]), TicketError::NotATicket);
        assert_eq!(parse("runmesh join"), TicketError::NotATicket);
        assert_eq!(parse(&"runmesh1a".repeat(10_000)), TicketError::NotATicket);
        assert_eq!(parse(&text.replacen('1', "2", 1)), TicketError::Version("2".to_owned()));
        assert_eq!(parse(&format!("{text}!")), TicketError::Character('!'));
        assert!(matches!(parse(&format!("{text}abcdefgh")), TicketError::Damaged(_)));
    }

    #[test]
    fn only_the_mesh_key_signs_it() {
        let mut forged = invitation(&[]);
        forged.ticket.expires_ms += 1;
        assert_eq!(forged.to_string().parse::<Invitation>(), Err(TicketError::NotSigned(forged.mesh)));
    }

    #[test]
    fn addresses_beyond_the_limits_are_not_written() {
        let long = "x".repeat(MAX_ADDRESS);
        let mut full = invitation(&[]);
        full.addresses = vec![long.clone(); MAX_ADDRESSES + 1];
        full.addresses[0].push('x');
        let text = full.to_string();
        assert!(text.len() <= MAX_TICKET_TEXT, "{}", text.len());
        assert_eq!(text.parse::<Invitation>().expect("parses").addresses, vec![long; MAX_ADDRESSES]);
    }

    proptest! {
        #[test]
        fn every_invitation_is_read_back(addresses in proptest::collection::vec("[a-z0-9/.é]{0,60}", 0..5)) {
            let invitation = Invitation { addresses, ..invitation(&[]) };
            prop_assert_eq!(invitation.to_string().parse(), Ok(invitation));
        }

        #[test]
        fn any_changed_character_is_refused(at in 8..200_usize, to in "[a-z2-7]") {
            let mut text = text();
            let at = 8 + at % (text.len() - 8);
            prop_assume!(text[at..=at] != to);
            text.replace_range(at..=at, &to);
            // The last digit's spare bits stand for nothing.
            if at + 1 < text.len() {
                prop_assert!(text.parse::<Invitation>().is_err());
            }
        }

        #[test]
        fn any_text_is_answered(text in "(runmesh1)?[a-z0-9 é]{0,200}") {
            let _ = text.parse::<Invitation>();
        }
    }
}
