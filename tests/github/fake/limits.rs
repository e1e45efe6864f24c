//! Tokens, what they may see and how much, and failures on demand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{Repository, World, now};

/// What a token is and has left.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// Whose it is.
    pub(crate) login: String,
    /// Of an installation of an app.
    pub(crate) installation: Option<u64>,
    /// Owners whose private repositories it sees too, and such repositories by name; all where it is absent.
    pub(crate) sees: Option<Vec<String>>,
    pub(crate) core: Quota,
    pub(crate) graphql: Quota,
    /// Seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// May administer runners.
    pub(crate) admin: bool,
    /// Answers 401 from now on.
    pub(crate) revoked: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) limit: u64,
    pub(crate) used: u64,
    /// Seconds since 1970.
    pub(crate) reset: u64,
}

impl Quota {
    fn new(limit: u64) -> Self {
        Self { limit, used: 0, reset: now() + 3_600 }
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Begins anew when its hour is over.
    pub(crate) fn refresh(&mut self) {
        if self.reset <= now() {
            *self = Self::new(self.limit);
        }
    }

    /// Leaves so much, for so many seconds.
    pub(crate) fn leave(&mut self, remaining: u64, seconds: u64) {
        self.used = self.limit - remaining.min(self.limit);
        self.reset = now() + seconds;
    }
}

impl Token {
    pub(crate) fn of(login: &str) -> Self {
        Self {
            login: login.to_owned(),
            installation: None,
            sees: None,
            core: Quota::new(5_000),
            graphql: Quota::new(5_000),
            expires: None,
            admin: true,
            revoked: false,
        }
    }

    pub(crate) fn sees_private(&self, repository: &Repository) -> bool {
        let is_named = |sees: &Vec<String>| sees.contains(&repository.owner) || sees.contains(&repository.full_name());
        self.sees.as_ref().is_none_or(is_named)
    }

    pub(crate) fn may_see(&self, repository: &Repository, world: &World) -> bool {
        let Some(installation) = self.installation else {
            return !repository.private || self.sees_private(repository);
        };
        let account = world.installations.iter().find(|one| one.id == installation).map(|one| one.account.as_str());
        !repository.private || account == Some(&repository.owner)
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status, with a JSON message.
    Status(u16),
    /// The secondary limit: 403 and `Retry-After`, in seconds.
    Secondary(u64),
    /// The answer comes after so long.
    Slow(Duration),
    /// The connection ends in the middle of the answer.
    Cut,
    /// Status 200, and nothing.
    Empty,
    /// A GraphQL answer with status 200, no data and this type of error.
    GraphqlError(String),
}

#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// A token that is not here is the user `octocat`'s.
    pub(crate) tokens: BTreeMap<String, Token>,
    faults: Vec<(String, usize, Fault)>,
    /// A GraphQL page of more repositories is answered with 502.
    pub(crate) heaviest_page: Option<u64>,
    /// GraphQL is refused to everybody, as by a token without the right to it.
    pub(crate) no_graphql: bool,
    /// How many installation tokens have been given out.
    pub(crate) minted: u64,
    /// How long one is good for, in seconds.
    pub(crate) token_life: Option<u64>,
}

impl Limits {
    pub(crate) fn fail(&mut self, path: &str, times: usize, fault: Fault) {
        self.faults.push((path.to_owned(), times, fault));
    }

    pub(crate) fn heal(&mut self) {
        self.faults.clear();
    }

    /// The fault that this request meets, used up by that.
    pub(crate) fn meet(&mut self, path: &str) -> Option<Fault> {
        let (_, times, fault) =
            self.faults.iter_mut().find(|(prefix, times, _)| *times > 0 && path.starts_with(prefix.as_str()))?;
        *times -= 1;
        Some(fault.clone())
    }

    /// The token, made known by its first use.
    pub(crate) fn token(&mut self, secret: &str) -> &mut Token {
        let token = self.tokens.entry(secret.to_owned()).or_insert_with(|| Token::of("octocat"));
        token.core.refresh();
        token.graphql.refresh();
        token
    }
}
