//! What of GitHub a node would use by these settings: asked for, nothing changed there.

use super::super::settings::NodeSettings;
use super::{Check, Found};
use crate::daemon::{AutoscalerSettings, NO_SCALE_SET};
use crate::forge::Spec;
use crate::forge::github::{Github, Memory, RunnerMemory, Scope, Tally, Target};

/// None where no source is GitHub's and no runner is to be started.
pub(super) async fn checks(settings: &NodeSettings) -> Vec<Check> {
    let at_github: Vec<&Spec> = settings.sources.iter().filter(|spec| !matches!(spec, Spec::Git(_))).collect();
    let scales = settings.autoscaler.settings().filter(|_| settings.max_runners > 0);
    if at_github.is_empty() && scales.is_none() {
        return Vec::new();
    }
    let purpose = "sources, jobs that GitHub queues";
    let github = match settings.github.open().await {
        Ok(github) => github,
        Err(error) => return vec![Check::new("GitHub", purpose, Err(error.to_string()))],
    };
    let reached = reached(&github, &at_github).await;
    let is_reached = reached.is_ok();
    let mut checks = vec![Check::new("GitHub", purpose, reached)];
    // What is not reached is said once.
    if let Some(autoscaler) = scales.filter(|_| is_reached) {
        let scopes: Vec<Scope> = at_github.iter().filter_map(|spec| Scope::of(spec)).collect();
        if !scopes.is_empty() {
            checks.push(Check::new("registrations", "runners for those jobs", registers(&github, &scopes).await));
        }
        if let Some(name) = &autoscaler.scale_set {
            let found = scale_set(&github, &scopes, name, &autoscaler).await;
            checks.push(Check::new("scale set", "hearing of those jobs at once", found));
        }
    }
    checks
}

async fn reached(github: &Github, sources: &[&Spec]) -> Result<String, String> {
    let mut found = Found::default();
    for spec in sources {
        let answer = match Target::of(spec) {
            Some(target) => github.reach(&target).await.map(|()| spec.to_string()),
            None => {
                let owners = github.owners(&mut Memory::default(), &Tally::default()).await;
                owners.map(|owners| format!("{spec}, which is {}", owners.join(", ")))
            }
        };
        found.take(answer);
    }
    if sources.is_empty() {
        found
            .wrong
            .push("the autoscaler is on, and no source is at GitHub: name one, such as github:my-org".to_owned());
    }
    found.tell().map(|names| format!("{} reaches {names}", github.host()))
}

async fn registers(github: &Github, scopes: &[Scope]) -> Result<String, String> {
    let mut found = Found::default();
    for scope in scopes {
        let all = github.runners(scope, "", &mut RunnerMemory::default(), &Tally::default()).await;
        found.take(all.map(|all| format!("{} of {scope}", all.len())));
    }
    found.tell()
}

async fn scale_set(
    github: &Github,
    scopes: &[Scope],
    name: &str,
    autoscaler: &AutoscalerSettings,
) -> Result<String, String> {
    let mut found = Found::default();
    for scope in scopes {
        // Only organisations have groups.
        let group = autoscaler.group.as_deref().filter(|_| matches!(scope, Scope::Organization(_)));
        let service = github.scale_sets(scope.clone()).map_err(|error| error.to_string())?;
        let there = service.look_for(name, group).await;
        found.take(there.map(|there| match there {
            Some(set) => format!("{} of {scope}", set.name),
            None => format!("{name} of {scope}, made at the first start"),
        }));
    }
    if scopes.is_empty() {
        found.wrong.push(NO_SCALE_SET.to_owned());
    }
    found.tell()
}
