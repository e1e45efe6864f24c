//! The pre-shared key that hides a mesh: without it a node answers nobody, not even with what it is.
//!
//! The file is the one that other libp2p programs use: `/key/swarm/psk/1.0.0/`, `/base16/`, and 32 bytes in hexadecimal.

use std::fmt;
use std::str::FromStr;

use libp2p::pnet::{KeyParseError, PreSharedKey};

/// A pre-shared key. Never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SwarmKey(pub(super) PreSharedKey);

/// What is wrong with a key's text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwarmKeyError {
    #[error("it does not begin with the lines `/key/swarm/psk/1.0.0/` and `/base16/`")]
    Form,
    #[error("its third line is not 64 hexadecimal digits")]
    Digits,
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(…)")
    }
}

impl FromStr for SwarmKey {
    type Err = SwarmKeyError;

    fn from_str(text: &str) -> Result<Self, SwarmKeyError> {
        // libp2p's own reader takes neither blanks at the ends of lines nor, safely, what is not ASCII.
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        if !text.is_ascii() {
            return Err(SwarmKeyError::Digits);
        }
        let key = lines.join("\n").parse().map_err(|error| match error {
            KeyParseError::InvalidKeyFile | KeyParseError::InvalidKeyType | KeyParseError::InvalidKeyEncoding => {
                SwarmKeyError::Form
            }
            KeyParseError::InvalidKeyLength | KeyParseError::InvalidKeyChar(_) => SwarmKeyError::Digits,
        });
        key.map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Result<SwarmKey, SwarmKeyError> {
        text.parse()
    }

    #[test]
    fn the_usual_file_is_read_and_never_shown() {
        let digits = "0a".repeat(32);
        let read = key(&format!("/key/swarm/psk/1.0.0/\n/base16/\n{digits}\n")).expect("a key");
        assert_eq!(key(&format!("/key/swarm/psk/1.0.0/\r\n/base16/ \r\n{digits}")), Ok(read));
        assert!(!format!("{read:?}").contains("0a"));
        assert_eq!(key(&digits), Err(SwarmKeyError::Form));
        assert_eq!(key(&format!("/key/swarm/psk/1.0.0/\n/base64/\n{digits}")), Err(SwarmKeyError::Form));
        for digits in [&digits[1..], &format!("{digits}0"), &"xy".repeat(32), &"é".repeat(32)] {
            assert_eq!(key(&format!("/key/swarm/psk/1.0.0/\n/base16/\n{digits}\n")), Err(SwarmKeyError::Digits));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}", digits in ".{64}") {
            let _ = key(&text);
            let _ = key(&format!("/key/swarm/psk/1.0.0/\n/base16/\n{digits}"));
        }
    }
}
