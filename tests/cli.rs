//! The commands as a person meets them, written as transcripts.
//!
//! A transcript is what a terminal would show: `$ runmesh …`, then what it prints, standard error lines after `! `, and
//! at the end `[N]` when it ends with exit status N. `[..]` stands for anything within a line, a line `...` for any
//! lines, and `[DIR]` for the folder that the test works in.

#[path = "cli/service.rs"]
mod service;
#[path = "cli/terminal.rs"]
mod terminal;

use serde_json::Value;
use terminal::{Node, Terminal};

#[test]
fn without_a_node_every_question_says_how_to_start_one() {
    let terminal = Terminal::new();
    for question in
        ["inspect status", "inspect tasks", "mesh members", "mesh invite", "tasks cancel 12ab", "tasks logs 12ab"]
    {
        terminal.shows(&format!(
            "$ runmesh {question} --data-dir [DIR]/node\n\
             ! error: no node answers at [DIR]/node\n\
             !   hint: start one with `runmesh node run --data-dir [DIR]/node`, or name another one with --data-dir\n\
             [3]\n"
        ));
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let terminal = Terminal::new();
    terminal.shows(
        "
$ runmesh
! A leaderless mesh that runs GitHub Actions work on machines you own
...
[2]
$ runmesh inspect everything
! error: unrecognized subcommand 'everything'
...
[2]
$ runmesh node run --source svn:/here
! error: invalid value 'svn:/here' for '--source <SPEC>': is not github:OWNER, github:OWNER/REPO, git:PATH or git:NAME=PATH
...
[2]
$ runmesh node run --source github:a/b/c
! error: invalid value 'github:a/b/c' for '--source <SPEC>': names no GitHub owner or repository: write [..]
...
[2]
$ runmesh node run --source git:
! error: invalid value 'git:' for '--source <SPEC>': gives no path: write git:PATH
...
[2]
$ runmesh node run --listen localhost:80
! error: invalid value 'localhost:80' for '--listen <MULTIADDR>': is not a multiaddr, such as /ip4/192.168.1.20/tcp/4477
...
[2]
$ runmesh node run --max-runners many
! error: invalid value 'many' for '--max-runners <N>': is not a number from 0 to 1024
...
[2]
$ runmesh tasks submit api ci.yml --priority 11
! error: invalid value '11' for '--priority <N>': 11 is not in 1..=10
...
[2]
$ runmesh mesh invite --label x!y
! error: invalid value 'x!y' for '--label <LABEL>': is not a label: letters, digits, [..]
...
[2]
$ runmesh mesh invite --label !x
! error: invalid value '!x' for '--label <LABEL>': takes a label away: name those that may be offered
...
[2]
$ runmesh mesh invite --ttl soon
! error: invalid value 'soon' for '--ttl <TIME>': is not a time from 1s to 365d, such as 30m, 1h or 2d
...
[2]
",
    );
}

#[test]
fn help_shows_only_what_works() {
    let help = Terminal::new().run(&["--help"]);
    assert_eq!(help.status, 0);
    for word in ["node", "mesh", "inspect", "tasks", "github", "p2p-workflow", "demo", "doctor", "completions"] {
        assert!(help.stdout.contains(&format!("\n  {word} ")), "{word}: {}", help.stdout);
    }
    for word in ["reap", "revoke"] {
        assert!(!help.stdout.contains(word), "{word}: {}", help.stdout);
    }
}

#[test]
fn a_bad_settings_file_is_named_with_its_key() {
    let terminal = Terminal::new();
    terminal.write("typo.toml", "max_runer = 3\n");
    terminal.write("value.toml", "isolation = \"jail\"\n");
    terminal.write("broken.toml", "listen = [\n\n\"/ip4\n");
    terminal.shows(
        "
$ runmesh node run --config typo.toml
! error: the settings file [DIR]/typo.toml: `max_runer` is no setting
!   hint: did you mean `max_runners`?
[2]
$ runmesh inspect status --config value.toml
! error: the settings file [DIR]/value.toml: `isolation` has `jail`, which is not one of: container, bwrap, none
[2]
$ runmesh doctor --config broken.toml
! error: the settings file [DIR]/broken.toml: line 3 is not TOML: [..]
[2]
$ runmesh doctor --config none.toml
! error: cannot read the settings file [DIR]/none.toml
!   because: No such file or directory (os error 2)
[2]
",
    );
}

#[test]
fn a_bad_variable_is_named_with_its_value() {
    let mut terminal = Terminal::new();
    terminal.set("RUNMESH_OUTPUT", "xml");
    terminal.shows(
        "
$ runmesh inspect status
! error: the environment's RUNMESH_OUTPUT: `xml` is not one of: table, json
[2]
",
    );
}

#[test]
fn a_text_that_is_no_ticket_is_refused_before_anything_is_made() {
    let terminal = Terminal::new();
    terminal.shows(
        "
$ runmesh mesh join garbage --data-dir node
! error: cannot use this ticket
!   because: this is not a ticket: a ticket begins with `runmesh1`; copy all of what `runmesh mesh invite` printed
[2]
",
    );
    assert!(!terminal.path("node").exists());
}

#[test]
fn a_data_directory_that_is_none_is_refused_with_what_to_do() {
    Terminal::new().shows(
        "
$ runmesh node run --data-dir /dev/null --max-runners 0
! error: [..]/dev/null[..]
...
!   hint: name another data directory with --data-dir
[1]
$ runmesh mesh init --data-dir /dev/null
! error: [..]/dev/null[..]
...
!   hint: name another data directory with --data-dir
[1]
",
    );
}

#[test]
fn workflow_files_are_checked_without_a_node_and_one_that_is_none_fails() {
    let terminal = Terminal::new();
    terminal.write("good.yml", "# P2P: p2p-only\non: push\njobs:\n  a:\n    runs-on: linux\n    steps: [{run: x}]\n");
    terminal.write("bad.yml", "# P2P: p2p-only\non: [push\njobs: }\n");
    assert_eq!(terminal.run(&["p2p-workflow", "check-tags", "good.yml"]).status, 0);
    terminal.shows(
        "
$ runmesh p2p-workflow check-tags good.yml bad.yml
...
runs [..]not at all: [..]
...
! error: no workflow can be read in bad.yml
[1]
",
    );
    let asked = ["p2p-workflow", "check-tags", "bad.yml", "--output", "json"];
    let checked: Value = serde_json::from_str(&terminal.run(&asked).stdout).expect("JSON");
    assert!(checked[0]["error"].is_string(), "{checked:#}");
}

#[test]
fn discovery_without_a_node_says_how_to_start_one_at_that_directory() {
    let terminal = Terminal::new();
    let git = |words: &[&str]| {
        let done = std::process::Command::new("git").arg("-C").arg(terminal.path("")).args(words).output();
        assert!(done.expect("git runs").status.success(), "git {words:?}");
    };
    git(&["init", "-q", "repository"]);
    let commit = "-C repository -c user.name=T -c user.email=t@example.org commit -q --allow-empty -m first";
    git(&commit.split(' ').collect::<Vec<_>>());
    terminal.shows(
        "
$ runmesh github p2p-discover once --source git:repository --data-dir [DIR]/none
...
note: no node runs at this data directory, [..] start one with `runmesh node run --data-dir [DIR]/none`
",
    );
}

#[test]
fn a_mesh_is_made_once_in_a_data_directory() {
    Terminal::new().shows(
        "
$ runmesh mesh init --data-dir [DIR]/a
made mesh [..]
this host is its founder: 12D3KooW[..]
next: runmesh node run --data-dir [DIR]/a
$ runmesh mesh init --data-dir [DIR]/a
! error: this host belongs to mesh [..] already
!   hint: make another mesh with another --data-dir
[1]
",
    );
}

#[test]
fn a_node_greets_answers_and_leaves_in_good_order() {
    let terminal = Terminal::new();
    let node = Node::start(&terminal, "a", &["--max-runners", "0"]);
    terminal.shows(
        "
$ runmesh inspect status --data-dir [DIR]/a
node      12D3KooW[..]
mesh      [..]
          this node is its only member
listens   /ip4/127.0.0.1/tcp/[..]/p2p/12D3KooW[..]
clock     [..]1 head ([..]), state [..]
tasks     none
runners   0 of 0 busy
labels    [..]
data      [DIR]/a
process   [..], up [..], version [..]
$ runmesh inspect tasks --data-dir [DIR]/a
no tasks yet; `runmesh inspect sources` shows where they come from
$ runmesh inspect peers --data-dir [DIR]/a
no other members yet; `runmesh mesh invite` prints a ticket for one
$ runmesh inspect queue --data-dir [DIR]/a
nothing waits
$ runmesh inspect runners --data-dir [DIR]/a
nothing runs here now
$ runmesh inspect sources --data-dir [DIR]/a
no sources; name one with `runmesh node run --source github:OWNER` or `--source git:PATH`
$ runmesh mesh members --data-dir [DIR]/a
member [..] state  admitted  by      last heard  version
12D3KooW[..]  self  [..]  itself  -           [..]
$ runmesh inspect tasks 12ab --data-dir [DIR]/a
! error: no task's id begins with `12ab`
!   hint: `runmesh inspect tasks` lists the tasks that this node knows
[1]
$ runmesh tasks submit nowhere .github/workflows/ci.yml --data-dir [DIR]/a
! error: no source of this node holds a repository `nowhere`: it has none; name one with `runmesh node run --source`
[1]
",
    );
    let greeting = node.stop();
    for part in ["node     12D3KooW", "made just now", "invite   runmesh mesh invite --data-dir ", "runs     no tasks"]
    {
        assert!(greeting.contains(part), "{part}: {greeting}");
    }
}

/// What `doctor` says of one thing: whether it is in order, and what was found.
fn doctor(terminal: &Terminal, what: &str, words: &[&str]) -> (bool, String) {
    let done = terminal.run(&[&["doctor", "--output", "json"], words].concat());
    let checks: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    let check = checks.as_array().and_then(|checks| checks.iter().find(|check| check["what"] == what));
    let check = check.unwrap_or_else(|| panic!("no check of `{what}`: {done:?}"));
    assert!(check["ok"] == true || done.status == 1, "{done:?}");
    (check["ok"] == true, check["found"].as_str().expect("a sentence").to_owned())
}

#[test]
fn doctor_finds_what_settings_name_and_is_not_there() {
    let terminal = Terminal::new();
    terminal.write("secret", "hunter2");
    let finds = |settings: &str, what: &str, why: &str| {
        terminal.write("config.toml", settings);
        let (ok, found) = doctor(&terminal, what, &["--config", "config.toml", "--data-dir", "none"]);
        assert!(!ok && found.contains(why), "{settings}: {found}");
    };
    finds("[secrets.\"a/b\"]\nTOK = { file = \"/nope\" }", "secrets", "TOK of a/b: reading the secret in /nope");
    finds("[secrets.\"a/b\"]\nTOK = { file = \"secret\" }", "secrets", "chmod 600");
    finds("[secrets.\"a/b\"]\nTOK = { env = \"NOPE\" }", "secrets", "no variable NOPE");
    finds("sources = [\"git:/nope\"]", "repositories", "/nope");
    finds("executor = \"command\"\ncommand = [\"/nope\"]", "command", "/nope is no program");
    finds("executor = \"command\"\ncommand = [\"nope\"]", "command", "`nope` is not on the PATH");
    let (ok, found) = doctor(&terminal, "disk", &["--data-dir", "/proc/foo"]);
    assert!(!ok && found.contains("/proc/foo cannot be made in /proc"), "{found}");
}

#[test]
fn doctor_looks_into_the_data_directory_and_leaves_it_as_it_is() {
    use std::os::unix::fs::PermissionsExt;

    let terminal = Terminal::new();
    let node = Node::start(&terminal, "a", &["--max-runners", "0"]);
    let look = || doctor(&terminal, "data directory", &["--data-dir", "a"]);
    assert!(look().0, "in use: {:?}", look());
    node.stop();
    let (ok, found) = look();
    assert!(ok && found.contains("of mesh"), "{found}");

    let database = terminal.path("a/runmesh.redb");
    let good = std::fs::read(&database).expect("the database");
    for bad in [b"SQLite format 3\0 and so on".to_vec(), good[..good.len() / 2].to_vec()] {
        std::fs::write(&database, &bad).expect("written");
        let (ok, found) = look();
        assert!(!ok && found.contains("a/runmesh.redb") && found.contains("move it away"), "{found}");
        assert!(std::fs::read(&database).expect("still there") == bad, "the file was changed");
    }
    std::fs::write(&database, good).expect("written");
    for name in ["identity.key", "mesh.key"] {
        let path = terminal.path(&format!("a/{name}"));
        let may = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        let key = std::fs::read(&path).expect("a key");
        may(0o644);
        assert!(look().1.contains("chmod 600"), "{:?}", look());
        may(0o600);
        std::fs::write(&path, "no key").expect("written");
        assert!(look().1.contains("does not hold a key"), "{:?}", look());
        std::fs::write(&path, key).expect("written");
    }
    assert!(look().0, "{:?}", look());
}

#[test]
fn only_another_that_is_a_member_can_be_put_out() {
    let terminal = Terminal::new();
    let _node = Node::start(&terminal, "a", &["--max-runners", "0"]);
    let status = terminal.run(&["inspect", "status", "--data-dir", "a", "--output", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let me = status["peer_id"].as_str().expect("a peer id");
    let stranger = "12D3KooWQtBm18bMKpooYXGJ1H1sS6FtanQnU19mHJN1rmhvh8bM";
    terminal.shows(&format!(
        "
$ runmesh mesh revoke {me} --data-dir [DIR]/a
! error: a node cannot put itself out, [..] `runmesh node drain`, and revoke it at another node
[1]
$ runmesh mesh revoke {stranger} --data-dir [DIR]/a
! error: {stranger} is no member that this node knows: it never was one, or is revoked already; [..]
[1]
$ runmesh mesh members --data-dir [DIR]/a
member [..] state  admitted  by      last heard  version
{me}  self  [..]  itself  -           [..]
"
    ));
}

#[test]
fn a_start_that_fails_leaves_no_mesh_behind() {
    let terminal = Terminal::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    terminal.shows(&format!(
        "
$ runmesh node run --data-dir [DIR]/a --max-runners 0 --listen /ip4/127.0.0.1/tcp/{port}
...
! error: [..]Address already in use[..]
...
[1]
$ runmesh mesh init --data-dir [DIR]/a
made mesh [..]
...
$ runmesh node run --data-dir [DIR]/a --max-runners 0 --listen /ip4/127.0.0.1/tcp/{port}
...
! error: [..]Address already in use[..]
...
[1]
$ runmesh mesh init --data-dir [DIR]/a
! error: this host belongs to mesh [..] already
...
[1]
"
    ));
}

#[test]
fn who_makes_a_mesh_although_it_was_sent_to_another_is_told_how_to_join_that() {
    let terminal = Terminal::new();
    // Port 9 (discard) is not listened on; nothing answers there.
    let node = Node::start(&terminal, "a", &["--max-runners", "0", "--bootstrap", "/ip4/127.0.0.1/tcp/9"]);
    let greeting = node.stop();
    assert!(greeting.contains("not the mesh of the bootstrap addresses"), "{greeting}");
    let node = Node::start(&terminal, "a", &["--max-runners", "0", "--bootstrap", "/ip4/127.0.0.1/tcp/9"]);
    assert!(!node.stop().contains("not the mesh of"), "only of one that was made just now");
}

#[test]
fn a_node_stops_when_whoever_started_it_is_gone() {
    let terminal = Terminal::new();
    let node = Node::start(&terminal, "a", &["--max-runners", "0", "--stop-with-parent"]);
    node.stop_by_closing_its_input();
}

#[test]
fn programs_get_the_documented_shapes() {
    let terminal = Terminal::new();
    let _node = Node::start(&terminal, "a", &["--max-runners", "0"]);
    let ask = |words: &[&str]| -> Value {
        let answer = terminal.run(&[words, &["--output", "json", "--data-dir", "a"]].concat());
        assert_eq!(answer.status, 0, "{answer:?}");
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {answer:?}"))
    };
    let status = ask(&["inspect", "status"]);
    let keys = ["peer_id", "mesh_id", "listen", "peers", "heads", "entries", "state_hash", "tasks", "runners"];
    for key in keys {
        assert!(!status[key].is_null(), "{key}: {status:#}");
    }
    assert!(status["listen"][0].as_str().is_some_and(|address| address.contains("/p2p/12D3KooW")), "{status:#}");
    for state in ["pending", "claimed", "running", "completed", "cancelled", "lost", "left-to-github"] {
        assert_eq!(status["tasks"][state], 0, "{status:#}");
    }
    for list in ["peers", "tasks", "queue", "runners", "sources"] {
        assert_eq!(ask(&["inspect", list]), Value::Array(Vec::new()), "{list}");
    }
    assert_eq!(ask(&["inspect", "clock"])["heads"], status["heads"]);
    assert_eq!(ask(&["mesh", "members"])[0]["peer_id"], status["peer_id"]);
    let events = ask(&["inspect", "events"]);
    assert!(
        events.as_array().is_some_and(|events| events.iter().any(|event| event["kind"] == "admitted")),
        "{events:#}"
    );
    let invitation = ask(&["mesh", "invite"]);
    assert_eq!(invitation["mesh_id"], status["mesh_id"]);
}

#[test]
fn a_ticket_is_printed_alone_and_makes_a_member() {
    let terminal = Terminal::new();
    let _first = Node::start(&terminal, "a", &["--max-runners", "0"]);
    let ticket = terminal.run(&["mesh", "invite", "--ttl", "10m", "--data-dir", "a"]);
    assert_eq!((ticket.status, ticket.stdout.lines().count(), ticket.stderr.as_str()), (0, 1, ""), "{ticket:?}");
    let ticket = ticket.stdout.trim();
    assert!(ticket.starts_with("runmesh1") && !ticket.contains(' '), "{ticket}");

    terminal.shows(&format!(
        "
$ runmesh mesh join {ticket} --data-dir [DIR]/b
this host is 12D3KooW[..] and will join mesh [..]
next: runmesh node run --data-dir [DIR]/b  (start it within [..], while the ticket is good)
$ runmesh mesh join {} --data-dir [DIR]/c
! error: cannot use this ticket
!   because: the ticket is cut: [..]
[2]
",
        &ticket[..ticket.len() - 9]
    ));
    let _second = Node::start(&terminal, "b", &["--max-runners", "0"]);
    terminal.wait_for("both to be members", || {
        let members = terminal.run(&["mesh", "members", "--data-dir", "a", "--output", "json"]);
        let members: Value = serde_json::from_str(&members.stdout).unwrap_or_default();
        members
            .as_array()
            .is_some_and(|members| members.len() == 2 && members.iter().all(|member| member["heard"] == true))
    });
    terminal.shows(
        "
$ runmesh mesh invite --data-dir [DIR]/b
! error: the key of mesh [..] is not here
!   hint: run this on the host that made the mesh, or name its key with --mesh-key FILE
[1]
",
    );
}

#[test]
fn who_waits_to_be_admitted_or_was_put_out_is_told_so() {
    let terminal = Terminal::new();
    let founder = Node::start(&terminal, "a", &["--max-runners", "0"]);
    let ticket = || terminal.run(&["mesh", "invite", "--data-dir", "a"]).stdout.trim().to_owned();
    let [first, second] = [ticket(), ticket()];
    let status = || -> Value {
        let answer = terminal.run(&["inspect", "status", "--data-dir", "b", "--output", "json"]);
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    };
    assert_eq!(terminal.run(&["mesh", "join", &first, "--data-dir", "b"]).status, 0);
    let member = Node::start(&terminal, "b", &["--max-runners", "0"]);
    terminal.wait_for("its admission", || status()["peers"] == 1);
    let me = status()["peer_id"].as_str().expect("a peer id").to_owned();
    assert_eq!(terminal.run(&["mesh", "revoke", &me, "--data-dir", "a"]).status, 0);
    terminal.wait_for("the news of that", || status()["standing"] == "revoked");
    let shown = terminal.run(&["inspect", "status", "--data-dir", "b"]).stdout;
    assert!(shown.contains("put out of it") && shown.contains("join TICKET` with a new --data-dir"), "{shown}");
    assert!(!shown.contains("only member") && !shown.contains("waits for a member"), "{shown}");
    member.stop();
    terminal.shows(&format!(
        "
$ runmesh mesh join {second} --data-dir [DIR]/b
! error: this host was revoked by the holder of the key of mesh [..]: join with a new --data-dir
[1]
"
    ));
    founder.stop();

    assert_eq!(terminal.run(&["mesh", "join", &second, "--data-dir", "c"]).status, 0);
    let _waits = Node::start(&terminal, "c", &["--max-runners", "0"]);
    terminal.shows(
        "
$ runmesh mesh members --data-dir [DIR]/c
no members known yet: this node waits for a member that admits it by its ticket
$ runmesh inspect status --data-dir [DIR]/c
node      12D3KooW[..]
mesh      [..]
          this node is not a member of it yet
...
[..]this node is not a member yet: it waits for a member that admits it by its ticket
...
",
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let terminal = Terminal::new();
    assert_eq!(terminal.run_with_closed_output(&["completions", "bash"]), 0);
}
