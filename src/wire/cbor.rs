//! A look over CBOR bytes before anything is built from them: nesting and number of items.

use super::WireError;
use super::limits::{MAX_DEPTH, MAX_ITEMS};

/// Walks over exactly one CBOR item of definite lengths, without recursion and without allocating.
///
/// # Errors
/// [`WireError::TooDeep`], [`WireError::TooMany`] beyond the limits, [`WireError::Malformed`] when the bytes end before
/// the item does, go on after it, or use what DAG-CBOR does not have.
pub(super) fn scan(bytes: &[u8]) -> Result<(), WireError> {
    // What is still to come at each open level.
    let mut open = [0_u64; MAX_DEPTH];
    let mut depth = 0;
    let mut items = 0;
    let mut rest = bytes;
    loop {
        items += 1;
        if items > MAX_ITEMS {
            return Err(WireError::TooMany { what: "CBOR items in the entry", count: items, limit: MAX_ITEMS });
        }
        let (major, argument) = head(&mut rest)?;
        // What lies below this item.
        let below = match major {
            // Numbers.
            0 | 1 => 0,
            // Bytes and text.
            2 | 3 => {
                let length = usize::try_from(argument).map_err(|_| cut())?;
                rest = rest.get(length..).ok_or_else(cut)?;
                0
            }
            4 => argument,
            5 => argument.checked_mul(2).ok_or_else(cut)?,
            // A tag stands before one item.
            6 => 1,
            // Simple values and floats; their bits were the argument.
            _ => 0,
        };
        // Each item takes a byte at least.
        if below > rest.len() as u64 {
            return Err(cut());
        }
        if below > 0 {
            *open.get_mut(depth).ok_or(WireError::TooDeep { limit: MAX_DEPTH })? = below;
            depth += 1;
            continue;
        }
        // The item is complete, and with it every level whose last it was.
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(malformed("bytes follow after its end")) };
        }
    }
}

/// Reads an item's head: its major type and argument.
fn head(rest: &mut &[u8]) -> Result<(u8, u64), WireError> {
    let (first, tail) = rest.split_first().ok_or_else(cut)?;
    *rest = tail;
    let long = match first & 0x1f {
        short @ 0..=23 => return Ok((first >> 5, u64::from(short))),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return Err(malformed("it has an indefinite length or a reserved head")),
    };
    let (argument, tail) = rest.split_at_checked(long).ok_or_else(cut)?;
    *rest = tail;
    Ok((first >> 5, argument.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))))
}

fn cut() -> WireError {
    malformed("it ends too early")
}

fn malformed(why: &str) -> WireError {
    WireError::Malformed { what: "the entry", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        let mut bytes = vec![0x81; levels];
        bytes.push(0x00);
        bytes
    }

    #[test]
    fn nesting_is_limited() {
        assert_eq!(scan(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(scan(&nested(MAX_DEPTH + 1)), Err(WireError::TooDeep { limit: MAX_DEPTH }));
        assert_eq!(scan(&nested(60_000)), Err(WireError::TooDeep { limit: MAX_DEPTH }));
    }

    #[test]
    fn items_are_limited() {
        let list = |count: u16| {
            let mut bytes = vec![0x99];
            bytes.extend(count.to_be_bytes());
            bytes.extend(vec![0x00; usize::from(count)]);
            bytes
        };
        assert_eq!(scan(&list(u16::try_from(MAX_ITEMS).expect("small") - 1)), Ok(()));
        assert!(matches!(scan(&list(u16::try_from(MAX_ITEMS).expect("small"))), Err(WireError::TooMany { .. })));
    }

    #[test]
    fn claims_beyond_the_bytes_are_refused() {
        // A list, a map and a text of 2^64 - 1, an indefinite list, nothing at all, and one item too many.
        for bytes in [&[0x9b; 9][..], &[0xbb; 9], &[0x7b; 9], &[0x9f, 0xff], &[], &[0x00, 0x00]] {
            assert!(matches!(scan(bytes), Err(WireError::Malformed { .. })), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes);
        }

        #[test]
        fn whatever_the_decoder_takes_passes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if serde_cbor::from_slice::<ipld_core::ipld::Ipld>(&bytes).is_ok() {
                prop_assert_eq!(scan(&bytes), Ok(()));
            }
        }
    }
}
