//! What members ask of whoever can reach a scale set, and what they are told: configurations of runners, which go this way
//! alone, and how jobs stand.

use std::collections::BTreeSet;
use std::fmt;

use prost::Message as _;

use super::field::{cid, clip, count, size, task, text};
use super::limits::{MAX_CONFIGURATION, MAX_JOBS, MAX_NAME, MAX_RUNNER, MAX_SOURCE, MAX_WHY};
use super::proto::scale_set_ask::Ask as Asked;
use super::proto::scale_set_told::Told;
use super::{WireError, proto};
use crate::kernel::id::TaskId;
use crate::kernel::io::SourceKey;
use crate::kernel::task::{Conclusion, Fence};

/// A question, and which scale set it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAsk {
    pub set: SourceKey,
    pub what: SetQuestion,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetQuestion {
    /// Register a runner of that name for a task that the asker holds.
    Configure { task: TaskId, fence: Fence, runner: String },
    /// How do these jobs stand, and those that runners have whose names begin so? Of runners that have ended, what they
    /// were told of their job.
    Jobs { jobs: BTreeSet<u64>, prefix: String, ended: Vec<EndedRunner> },
    /// Take the registration of the asker's runner back.
    Remove { registration: u64, runner: String },
    /// The asker listens, to the set of that number in the session of that name: when it is there no more, whoever follows
    /// closes it.
    Listens { set: u64, session: String },
}

/// A runner that has ended, and by its hook the run whose job it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRunner {
    pub job: u64,
    pub runner: String,
    /// `OWNER/NAME`.
    pub repository: String,
    pub run: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetTold {
    Configured {
        registration: u64,
        configuration: Configuration,
    },
    /// That runner has the job.
    Taken {
        runner: String,
    },
    /// Not now, and why; ask again.
    Later {
        why: String,
    },
    Jobs(Vec<JobTold>),
    /// The registration is gone; not where its runner has a job.
    Removed {
        gone: bool,
    },
}

/// With it one becomes a runner. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Configuration(String);

impl Configuration {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configuration(…)")
    }
}

/// How a job stands, as far as whoever is asked knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobTold {
    pub job: u64,
    pub stands: Stands,
    /// The runner that has or had it.
    pub runner: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It waits for a runner.
    Waiting,
    Running,
    Over {
        conclusion: Conclusion,
        duration_ms: u64,
    },
}

/// The bytes of a question. Of too many jobs the first are asked about.
pub fn seal_ask(ask: &SetAsk) -> Vec<u8> {
    let what = match &ask.what {
        SetQuestion::Configure { task, fence, runner } => Asked::Configure(proto::RunnerWanted {
            task: task.0.to_vec(),
            attempt: fence.attempt,
            claim: fence.claim.digest().to_vec(),
            name: runner.clone(),
        }),
        SetQuestion::Jobs { jobs, prefix, ended } => Asked::Jobs(proto::JobsWanted {
            job: jobs.iter().take(MAX_JOBS).copied().collect(),
            prefix: prefix.clone(),
            ended: ended
                .iter()
                .filter(|one| one.repository.len() <= MAX_NAME)
                .take(MAX_JOBS)
                .map(|one| proto::RunnerEnded {
                    job: one.job,
                    runner: one.runner.clone(),
                    repository: one.repository.clone(),
                    run: one.run,
                })
                .collect(),
        }),
        SetQuestion::Remove { registration, runner } => {
            Asked::Retire(proto::RunnerGone { registration: *registration, name: runner.clone() })
        }
        SetQuestion::Listens { set, session } => Asked::Listens(proto::Listens { set: *set, session: session.clone() }),
    };
    let ask = proto::ScaleSetAsk { set: ask.set.clone(), ask: Some(what) };
    proto::Request { ask: Some(proto::request::Ask::ScaleSet(ask)) }.encode_to_vec()
}

/// The bytes of an answer. Of too many jobs the first are told.
pub fn seal_told(told: SetTold) -> Vec<u8> {
    let told = match told {
        SetTold::Configured { registration, configuration } => {
            Told::Configured(proto::RunnerConfigured { registration, configuration: configuration.0 })
        }
        SetTold::Taken { runner } => Told::Taken(clip(&runner, MAX_RUNNER)),
        SetTold::Later { why } => Told::Later(clip(&why, MAX_WHY)),
        SetTold::Removed { gone } => Told::Removed(gone),
        SetTold::Jobs(jobs) => {
            let job = |told: JobTold| {
                let (state, conclusion, duration_ms) = match told.stands {
                    Stands::Waiting => (0, "", 0),
                    Stands::Running => (1, "", 0),
                    Stands::Over { conclusion, duration_ms } => (2, conclusion.word(), duration_ms),
                };
                proto::JobTold {
                    job: told.job,
                    state,
                    runner: clip(&told.runner.unwrap_or_default(), MAX_RUNNER),
                    conclusion: conclusion.to_owned(),
                    duration_ms,
                }
            };
            Told::Jobs(proto::JobsTold { job: jobs.into_iter().take(MAX_JOBS).map(job).collect() })
        }
    };
    let told = proto::ScaleSetTold { told: Some(told) };
    proto::Response { answer: Some(proto::response::Answer::ScaleSet(told)) }.encode_to_vec()
}

pub(super) fn open_ask(ask: proto::ScaleSetAsk) -> Result<SetAsk, WireError> {
    let set = text(ask.set, "a scale set's name", MAX_SOURCE)?;
    let what = match ask.ask.ok_or(WireError::Unknown)? {
        Asked::Configure(wanted) => SetQuestion::Configure {
            task: task(&wanted.task)?,
            fence: Fence { attempt: wanted.attempt, claim: cid(&wanted.claim)? },
            runner: runner(wanted.name)?,
        },
        Asked::Jobs(wanted) => {
            count(wanted.job.len(), "jobs", MAX_JOBS)?;
            count(wanted.ended.len(), "runners", MAX_JOBS)?;
            let ended = wanted.ended.into_iter().map(|one| {
                Ok(EndedRunner {
                    job: one.job,
                    runner: runner(one.runner)?,
                    repository: text(one.repository, "a repository's name", MAX_NAME)?,
                    run: one.run,
                })
            });
            SetQuestion::Jobs {
                jobs: wanted.job.into_iter().collect(),
                prefix: runner(wanted.prefix)?,
                ended: ended.collect::<Result<_, WireError>>()?,
            }
        }
        Asked::Retire(gone) => SetQuestion::Remove { registration: gone.registration, runner: runner(gone.name)? },
        Asked::Listens(one) => {
            SetQuestion::Listens { set: one.set, session: text(one.session, "a session's name", MAX_RUNNER)? }
        }
    };
    Ok(SetAsk { set, what })
}

pub(super) fn open_told(told: proto::ScaleSetTold) -> Result<SetTold, WireError> {
    Ok(match told.told.ok_or(WireError::Unknown)? {
        Told::Configured(proto::RunnerConfigured { registration, configuration }) => {
            size(configuration.len(), "a runner's configuration", MAX_CONFIGURATION)?;
            SetTold::Configured { registration, configuration: Configuration(configuration) }
        }
        Told::Taken(name) => SetTold::Taken { runner: runner(name)? },
        Told::Later(why) => SetTold::Later { why: text(why, "a reason", MAX_WHY)? },
        Told::Removed(gone) => SetTold::Removed { gone },
        Told::Jobs(jobs) => {
            count(jobs.job.len(), "jobs", MAX_JOBS)?;
            SetTold::Jobs(jobs.job.into_iter().map(job).collect::<Result<_, WireError>>()?)
        }
    })
}

fn job(told: proto::JobTold) -> Result<JobTold, WireError> {
    let malformed = |why: &str| WireError::Malformed { what: "a job's state", why: why.to_owned() };
    let stands = match told.state {
        0 => Stands::Waiting,
        1 => Stands::Running,
        2 => {
            let conclusion = told.conclusion.parse().map_err(|()| malformed("its end is no word that there is"))?;
            Stands::Over { conclusion, duration_ms: told.duration_ms }
        }
        _ => return Err(malformed("there is none of that number")),
    };
    Ok(JobTold { job: told.job, stands, runner: Some(runner(told.runner)?).filter(|name| !name.is_empty()) })
}

fn runner(name: String) -> Result<String, WireError> {
    text(name, "a runner's name", MAX_RUNNER)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::id::MeshId;
    use crate::wire::field::arbitrary;
    use crate::wire::request::{self, Ask};
    use crate::wire::response;

    const MESH: MeshId = MeshId([5; 32]);

    fn asked(bytes: &[u8]) -> Result<Ask, WireError> {
        request::open(bytes, &MESH)
    }

    fn answered(bytes: &[u8]) -> Result<response::Told, WireError> {
        response::open(bytes, &MESH)
    }

    #[test]
    fn a_configuration_is_shown_to_nobody() {
        let told = SetTold::Configured { registration: 7, configuration: Configuration::new("secret") };
        assert!(!format!("{told:?}").contains("secret"), "{told:?}");
    }

    #[test]
    fn limits_hold() {
        let ask = |what| proto::Request {
            ask: Some(proto::request::Ask::ScaleSet(proto::ScaleSetAsk { set: "s".to_owned(), ask: Some(what) })),
        };
        let many = Asked::Jobs(proto::JobsWanted { job: vec![1; MAX_JOBS + 1], ..proto::JobsWanted::default() });
        assert!(matches!(asked(&ask(many).encode_to_vec()), Err(WireError::TooMany { .. })));
        let ended = vec![proto::RunnerEnded::default(); MAX_JOBS + 1];
        let many = Asked::Jobs(proto::JobsWanted { ended, ..proto::JobsWanted::default() });
        assert!(matches!(asked(&ask(many).encode_to_vec()), Err(WireError::TooMany { .. })));
        let long = Asked::Retire(proto::RunnerGone { registration: 1, name: "x".repeat(MAX_RUNNER + 1) });
        assert!(matches!(asked(&ask(long).encode_to_vec()), Err(WireError::TooLarge { .. })));
        let set = SetAsk {
            set: "s".repeat(MAX_SOURCE + 1),
            what: SetQuestion::Remove { registration: 1, runner: String::new() },
        };
        assert!(matches!(asked(&seal_ask(&set)), Err(WireError::TooLarge { .. })));
        let large = Configuration::new("x".repeat(MAX_CONFIGURATION + 1));
        let large = seal_told(SetTold::Configured { registration: 1, configuration: large });
        assert!(matches!(answered(&large), Err(WireError::TooLarge { .. })));
        let strange = |state: u32| {
            let job = vec![proto::JobTold { state, conclusion: "dreamt".to_owned(), ..proto::JobTold::default() }];
            let told = proto::ScaleSetTold { told: Some(Told::Jobs(proto::JobsTold { job })) };
            answered(&proto::Response { answer: Some(response_of(told)) }.encode_to_vec())
        };
        assert!(strange(1).is_ok());
        assert!(matches!(strange(2), Err(WireError::Malformed { .. })));
        assert!(matches!(strange(3), Err(WireError::Malformed { .. })));
    }

    fn response_of(told: proto::ScaleSetTold) -> proto::response::Answer {
        proto::response::Answer::ScaleSet(told)
    }

    fn any_ask() -> impl Strategy<Value = SetAsk> {
        let name = || "[a-z0-9-]{0,64}";
        let ended = (any::<u64>(), name(), "[a-z/]{0,40}", any::<u64>())
            .prop_map(|(job, runner, repository, run)| EndedRunner { job, runner, repository, run });
        let what = prop_oneof![
            (arbitrary::task(), any::<u32>(), arbitrary::cid(), name()).prop_map(|(task, attempt, claim, runner)| {
                SetQuestion::Configure { task, fence: Fence { attempt, claim }, runner }
            }),
            (btree_set(any::<u64>(), 0..9), name(), vec(ended, 0..4))
                .prop_map(|(jobs, prefix, ended)| SetQuestion::Jobs { jobs, prefix, ended }),
            (any::<u64>(), name()).prop_map(|(registration, runner)| SetQuestion::Remove { registration, runner }),
            (any::<u64>(), name()).prop_map(|(set, session)| SetQuestion::Listens { set, session }),
        ];
        ("[a-z:/#]{0,40}", what).prop_map(|(set, what)| SetAsk { set, what })
    }

    fn any_told() -> impl Strategy<Value = SetTold> {
        let name = || "[a-z0-9-]{1,64}";
        let stands = prop_oneof![
            Just(Stands::Waiting),
            Just(Stands::Running),
            (0..Conclusion::ALL.len(), any::<u64>())
                .prop_map(|(at, duration_ms)| Stands::Over { conclusion: Conclusion::ALL[at], duration_ms }),
        ];
        let job = (any::<u64>(), stands, proptest::option::of(name())).prop_map(|(job, stands, runner)| JobTold {
            job,
            stands,
            runner,
        });
        prop_oneof![
            (any::<u64>(), "[A-Za-z0-9=]{0,200}").prop_map(|(registration, text)| SetTold::Configured {
                registration,
                configuration: Configuration::new(text)
            }),
            name().prop_map(|runner| SetTold::Taken { runner }),
            "[ -~]{0,99}".prop_map(|why| SetTold::Later { why }),
            vec(job, 0..9).prop_map(SetTold::Jobs),
            any::<bool>().prop_map(|gone| SetTold::Removed { gone }),
        ]
    }

    proptest! {
        #[test]
        fn every_question_is_read_back(ask in any_ask()) {
            prop_assert_eq!(asked(&seal_ask(&ask)), Ok(Ask::ScaleSet(ask)));
        }

        #[test]
        fn every_answer_is_read_back(told in any_told()) {
            prop_assert_eq!(answered(&seal_told(told.clone())), Ok(response::Told::ScaleSet(told)));
        }
    }
}
