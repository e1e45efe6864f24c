//! What a token may still do, and when.
//!
//! The rules are those of GitHub's "Best practices for using the REST API" and "Rate limits" pages: a primary limit an
//! hour, told in headers; secondary limits, told by 403 or 429 with `Retry-After`; after either nothing is sent until
//! the time told, and after a secondary limit without a time a minute passes.

use std::fmt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AsHeaderName;

use super::lock;

/// Of a token's limit, what is left to its owner's other uses, in percent (DESIGN.md's issue: a fifth).
const RESERVE_PERCENT: u64 = 20;
/// After a secondary limit that tells no time, in seconds.
const SECONDARY_S: u64 = 60;

/// Why nothing may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The hour's limit is used up.
    Primary,
    /// Too much at once.
    Secondary,
    /// The rest of the hour's limit is the owner's.
    Reserve,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "the token's rate limit is used up",
            Self::Secondary => "GitHub asks for a pause (secondary rate limit)",
            Self::Reserve => "what is left of the token's rate limit is for other uses",
        })
    }
}

/// What a token has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Whose token it is, as far as that is known: an installation's account, else nothing.
    pub account: String,
    pub rest: Option<Quota>,
    pub graphql: Option<Quota>,
}

/// An hour's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub limit: u64,
    pub remaining: u64,
    /// Seconds since 1970.
    pub reset: u64,
}

/// One of a token's limits.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    state: Mutex<Told>,
}

/// What GitHub has told last.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    quota: Option<Quota>,
    /// Nothing may be sent until then.
    blocked: Option<(Reason, u64)>,
}

impl Gauge {
    /// Whether a call may be made.
    ///
    /// # Errors
    /// Why not, and until when.
    pub(super) fn check(&self, now: u64) -> Result<(), (Reason, u64)> {
        let Told { quota, blocked } = *lock(&self.state);
        if let Some((reason, until)) = blocked.filter(|(_, until)| now < *until) {
            return Err((reason, until));
        }
        match quota.filter(|quota| now < quota.reset) {
            Some(quota) if quota.remaining == 0 => Err((Reason::Primary, quota.reset)),
            Some(quota) if quota.remaining * 100 <= quota.limit * RESERVE_PERCENT => {
                Err((Reason::Reserve, quota.reset))
            }
            _ => Ok(()),
        }
    }

    /// Learns from an answer's headers. Gives why nothing may be sent for a while, if that is what it says.
    pub(super) fn learn(&self, status: u16, headers: &HeaderMap, now: u64) -> Option<(Reason, u64)> {
        let mut state = lock(&self.state);
        let numbers =
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| number(headers, name));
        if let [Some(limit), Some(remaining), Some(reset)] = numbers {
            state.quota = Some(Quota { limit, remaining, reset });
        }
        if !matches!(status, 403 | 429) {
            return None;
        }
        let told = number(headers, "retry-after").map(|seconds| now + seconds);
        let blocked = match (told, state.quota) {
            (Some(until), _) => (Reason::Secondary, until),
            (None, Some(quota)) if quota.remaining == 0 => (Reason::Primary, quota.reset),
            (None, _) if status == 429 => (Reason::Secondary, now + SECONDARY_S),
            (None, _) => return None,
        };
        state.blocked = Some(blocked);
        Some(blocked)
    }

    /// Something else than headers told that the limit is used up, or that a pause is asked for.
    pub(super) fn block(&self, reason: Reason, now: u64) -> (Reason, u64) {
        let mut state = lock(&self.state);
        let until = match (reason, state.quota) {
            (Reason::Primary, Some(quota)) if quota.reset > now => quota.reset,
            _ => now + SECONDARY_S,
        };
        state.blocked = Some((reason, until));
        (reason, until)
    }

    pub(super) fn quota(&self) -> Option<Quota> {
        lock(&self.state).quota
    }
}

fn number(headers: &HeaderMap, name: impl AsHeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time of day, UTC.
pub(super) fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("a value")))
            .collect()
    }

    fn left(remaining: &str) -> HeaderMap {
        headers(&[("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", "2000")])
    }

    #[test]
    fn a_fifth_is_left_to_the_tokens_owner() {
        let gauge = Gauge::default();
        assert_eq!(gauge.check(1_000), Ok(()));
        assert_eq!(gauge.learn(200, &left("1001"), 1_000), None);
        assert_eq!(gauge.check(1_000), Ok(()));
        gauge.learn(200, &left("1000"), 1_000);
        assert_eq!(gauge.check(1_999), Err((Reason::Reserve, 2_000)));
        assert_eq!(gauge.check(2_000), Ok(()), "the hour is over");
    }

    #[test]
    fn what_is_told_is_obeyed() {
        let gauge = Gauge::default();
        assert_eq!(gauge.learn(403, &left("0"), 1_000), Some((Reason::Primary, 2_000)));
        assert_eq!(gauge.check(1_500), Err((Reason::Primary, 2_000)));
        let gauge = Gauge::default();
        assert_eq!(gauge.learn(403, &headers(&[("retry-after", "30")]), 1_000), Some((Reason::Secondary, 1_030)));
        assert_eq!(gauge.check(1_029), Err((Reason::Secondary, 1_030)));
        assert_eq!(gauge.check(1_030), Ok(()));
        assert_eq!(gauge.learn(429, &HeaderMap::new(), 1_000), Some((Reason::Secondary, 1_060)));
        assert_eq!(Gauge::default().learn(403, &left("4000"), 1_000), None, "a refusal, not a limit");
    }
}
