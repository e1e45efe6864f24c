//! What credentials reach.

use crate::*;

#[tokio::test]
async fn archived_disabled_and_forked_repositories_are_passed_over() {
    let mut world = world(1);
    let ci = tagged("x");
    for (name, spoil) in [
        ("octo/archived", (|one| one.archived = true) as fn(&mut fake::world::Repository)),
        ("octo/disabled", |one| one.disabled = true),
        ("octo/fork", |one| one.fork = true),
    ] {
        spoil(world.repository(name, &[(format!("{W}ci.yml").as_str(), &ci)]));
    }
    let fake = Fake::start(world);
    let paths = async |selection: Selection| {
        let looked = look(&selecting(&fake, "t", selection), &octo(), Memory::default()).await;
        tagged_paths(&good(looked).0)
    };
    for graphql in [true, false] {
        fake.state().limits.no_graphql = !graphql;
        assert_eq!(paths(Selection::default()).await, ["octo/r0000 ci.yml"]);
        assert_eq!(
            paths(Selection { forks: true, ..Selection::default() }).await,
            ["octo/fork ci.yml", "octo/r0000 ci.yml"]
        );
        assert!(paths(Selection { exclude: vec!["r*".to_owned()], ..Selection::default() }).await.is_empty());
        assert!(paths(Selection { since_days: Some(1), ..Selection::default() }).await.is_empty(), "pushed in 2024");
    }
}

#[tokio::test]
async fn an_app_sees_what_it_is_installed_for_and_renews_its_tokens() {
    let mut world = World::new();
    world.repository("acme/secret", &[(format!("{W}ci.yml").as_str(), &tagged("ci"))]).private = true;
    world.repository("octo/hidden", &[(format!("{W}ci.yml").as_str(), &tagged("ci"))]).private = true;
    world.install(7, "acme");
    let fake = Fake::start(world);
    let credentials = Credentials::App { id: 7, key: rsa_key() };
    let github =
        Github::new(fake.api().parse().expect("an address"), credentials, Selection::default()).expect("a client");
    assert_eq!(github.owners(&mut Memory::default(), &Tally::default()).await.expect("owners"), ["acme"]);
    let acme = Target { owner: "acme".to_owned(), repository: None };
    let (findings, memory) = good(look(&github, &acme, Memory::default()).await);
    assert_eq!(tagged_paths(&findings), ["acme/secret ci.yml"]);
    let (none, _) = good(look(&github, &octo(), Memory::default()).await);
    assert!(none.workflows.is_empty(), "another account's private repositories stay unseen");
    assert_eq!(fake.state().limits.minted, 1);
    // A token that is about to end is not used any more.
    let github = Github::new(
        fake.api().parse().expect("an address"),
        Credentials::App { id: 7, key: rsa_key() },
        Selection::default(),
    )
    .expect("a client");
    fake.state().limits.token_life = Some(240);
    let (_, memory) = good(look(&github, &acme, memory).await);
    good(look(&github, &acme, memory).await);
    assert!(fake.state().limits.minted >= 3, "each look with a token that is good for long enough");
    // REST, for which an installation has a list of its own.
    fake.state().limits.no_graphql = true;
    let (findings, _) = good(look(&github, &acme, Memory::default()).await);
    assert_eq!(tagged_paths(&findings), ["acme/secret ci.yml"]);
}

#[tokio::test]
async fn owners_are_all_that_the_token_reaches() {
    let mut world = world(2);
    world.repository("acme/x", &[]);
    let fake = Fake::start(world);
    let mine = Token { sees: Some(vec!["acme".to_owned(), "octo".to_owned()]), ..Token::of("octo") };
    fake.state().limits.tokens.insert("t".to_owned(), mine);
    let owners = github(&fake, "t").owners(&mut Memory::default(), &Tally::default()).await;
    assert_eq!(owners.expect("owners"), ["acme", "octo"]);
}

#[tokio::test]
async fn a_commit_is_fetched_with_a_token_that_stays_nowhere() {
    let mut world = World::new();
    world.repository("octo/secret", &[(format!("{W}ci.yml").as_str(), &tagged("ci")), ("a/b.txt", "text")]).private =
        true;
    world.repository("octo/other", &[("a/b.txt", "text")]);
    let fake = Fake::start(world);
    let mine = Token { sees: Some(vec!["octo".to_owned()]), ..Token::of("octo") };
    fake.state().limits.tokens.insert("t0p-secret".to_owned(), mine);
    fake.state().limits.tokens.insert("other".to_owned(), Token { sees: Some(Vec::new()), ..Token::of("other") });
    let github = github(&fake, "t0p-secret");
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    let workload = &findings.workloads[0];
    // A later commit does not disturb.
    fake.commit("octo/secret", &[("a/b.txt", Some("later"))]);
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("checkout");
    github.checkout(workload, &into).await.expect("fetched");
    assert_eq!(std::fs::read_to_string(into.join("a/b.txt")).expect("a file"), "text");
    let head = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&into).output().expect("git runs");
    assert_eq!(String::from_utf8_lossy(&head.stdout).trim(), workload.commit);
    let config = std::fs::read_to_string(into.join(".git/config")).expect("settings");
    assert!(config.contains(&format!("{}/octo/secret.git", fake.api())), "{config}");
    assert!(!files_with(&into, "t0p-secret") && !files_with(&into, "x-access-token"));
    let refused = selecting(&fake, "other", Selection::default()).checkout(workload, &folder.path().join("2")).await;
    let error = refused.expect_err("refused").to_string();
    assert!(error.contains("look whether a commit is on a branch") && !error.contains("other"), "{error}");
    // What a member that lies may name: a pull request's head, another branch's commit, a commit of a fork.
    let lies = [("refs/pull/1/head", workload.commit.as_str()), ("refs/heads/none", &workload.commit)];
    for (n, (r#ref, commit)) in lies.into_iter().enumerate() {
        let lie = Workload { r#ref: r#ref.to_owned(), commit: commit.to_owned(), ..workload.clone() };
        let into = folder.path().join(format!("lie {n}"));
        let refused = github.checkout(&lie, &into).await.expect_err("refused").to_string();
        assert!(!into.exists() && refused.contains("branch"), "{refused}");
    }
    let elsewhere = fake.commit("octo/other", &[("a/b.txt", Some("of another repository"))]);
    let lie = Workload { commit: elsewhere, ..workload.clone() };
    assert!(github.checkout(&lie, &folder.path().join("elsewhere")).await.is_err());
}

fn files_with(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, text)
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        }
    })
}
