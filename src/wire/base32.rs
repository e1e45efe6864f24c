//! Base32 (RFC 4648, lower case, without padding): text that survives being read out, folded and upper-cased, and of
//! which a beginning stands for the beginning of the bytes.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text of the bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    let digit = |bits: u32| char::from(ALPHABET[(bits & 31) as usize]);
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut held) = (0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(digit(buffer >> held));
        }
    }
    if held > 0 {
        text.push(digit(buffer << (5 - held)));
    }
    text
}

/// The whole bytes that the text begins with, or the first character that is none of base32. Bits beyond the last
/// whole byte are not looked at.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, char> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut held) = (0_u32, 0);
    for character in text.chars() {
        let digit = match character.to_ascii_lowercase() {
            letter @ 'a'..='z' => letter as u32 - 'a' as u32,
            number @ '2'..='7' => number as u32 - '2' as u32 + 26,
            _ => return Err(character),
        };
        buffer = buffer << 5 | digit;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((buffer >> held & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_section_10() {
        let vectors = [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ];
        for (bytes, text) in vectors {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
            assert_eq!(decode(&text.to_uppercase()).as_deref(), Ok(bytes.as_bytes()));
        }
        assert_eq!(decode("mz1"), Err('1'));
    }

    proptest! {
        #[test]
        fn a_beginning_is_a_beginning(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0..100_usize) {
            let text = encode(&bytes);
            prop_assert_eq!(decode(&text), Ok(bytes.clone()));
            let part = decode(&text[..cut.min(text.len())]).expect("base32");
            prop_assert!(bytes.starts_with(&part));
        }
    }
}
