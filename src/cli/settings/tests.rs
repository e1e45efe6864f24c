use std::ffi::OsString;

use super::*;

fn global() -> Global {
    Global { data_dir: None, config: None, output: None }
}

fn git(name: Option<&str>, path: PathBuf) -> Spec {
    Spec::Git(crate::forge::GitSource { name: name.map(str::to_owned), path })
}

fn settled(
    global: &Global,
    run: &RunArguments,
    variables: &[(&str, &str)],
    folder: &Path,
) -> Result<NodeSettings, String> {
    let environment = |name: &str| {
        let known = variables.iter().find(|(known, _)| *known == name);
        known.map(|(_, value)| OsString::from(value))
    };
    let world = World { environment: &environment, folder: folder.to_owned(), processors: 8 };
    let failed = |failure: Failure| {
        assert_eq!(failure.status(), 2);
        failure.text(super::super::screen::Screen::PLAIN)
    };
    node(global, run, &world).map(|(_, settings)| settings).map_err(failed)
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "max_runners = 1\nlabels = [\"file\"]\nsources = [\"git:repos\"]\nisolation = \"none\"")
        .unwrap();
    let variables = [
        ("HOME", "/home/x"),
        ("RUNMESH_CONFIG", file.to_str().unwrap()),
        ("RUNMESH_MAX_RUNNERS", "2"),
        ("RUNMESH_LABELS", "one, TWO"),
        ("RUNMESH_EXECUTOR", ""),
    ];
    let run = RunArguments { max_runners: Some(3), ..RunArguments::default() };
    let work = Path::new("/work");

    let settings = settled(&global(), &run, &variables, work).unwrap();
    assert_eq!(settings.max_runners, 3);
    assert_eq!(settings.labels, ["one", "two"]);
    assert_eq!(settings.sources, [git(None, folder.path().join("repos"))]);
    assert_eq!((settings.isolation, settings.executor), (Isolation::None, Executor::Act));
    assert_eq!(settings.data_dir, Path::new("/home/x/.local/share/runmesh"));
    assert_eq!(settings.listen, reach::usual(false, has_ipv6()));

    let defaults = settled(&global(), &RunArguments::default(), &[("HOME", "/home/x")], work).unwrap();
    assert_eq!((defaults.max_runners, defaults.isolation), (4, Isolation::Bwrap));
}

#[test]
fn relative_paths_begin_where_they_were_written() {
    let global = Global { data_dir: Some("d".into()), ..global() };
    let run = RunArguments { sources: vec![git(Some("n"), "r".into())], ..RunArguments::default() };
    let settings = settled(&global, &run, &[("XDG_DATA_HOME", "/data")], Path::new("/work")).unwrap();
    assert_eq!(settings.data_dir, Path::new("/work/d"));
    assert_eq!(settings.sources, [git(Some("n"), "/work/r".into())]);
}

#[test]
fn what_stops_when_cut_off_must_be_a_source() {
    let sources = vec![git(None, "r".into()), git(None, "s".into())];
    let run = RunArguments { sources, stop_when_cut_off: vec![git(None, "s".into())], ..RunArguments::default() };
    let settings = settled(&global(), &run, &[("HOME", "/h")], Path::new("/work")).unwrap();
    assert_eq!(settings.stop_when_cut_off, [git(None, "/work/s".into())]);
    let variables = [("HOME", "/h"), ("RUNMESH_STOP_WHEN_CUT_OFF", "git:/other")];
    let complaint = settled(&global(), &RunArguments::default(), &variables, Path::new("/work")).unwrap_err();
    assert!(complaint.contains("git:/other, which is not among the sources"), "{complaint}");
}

#[test]
fn the_default_file_is_read_when_it_exists_and_a_named_one_must() {
    let home = tempfile::tempdir().unwrap();
    let home_text = home.path().to_str().unwrap();
    let run = RunArguments::default();
    assert!(settled(&global(), &run, &[("HOME", home_text)], home.path()).is_ok());

    let config = home.path().join(".config/runmesh");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), "max_runners = 7").unwrap();
    assert_eq!(settled(&global(), &run, &[("HOME", home_text)], home.path()).unwrap().max_runners, 7);

    let named = Global { config: Some("none.toml".into()), ..global() };
    let complaint = settled(&named, &run, &[("HOME", home_text)], home.path()).unwrap_err();
    assert!(complaint.contains("cannot read the settings file") && complaint.contains("none.toml"), "{complaint}");
}

#[test]
fn a_bad_variable_is_named_with_its_value() {
    let complain = |name, value| {
        settled(&global(), &RunArguments::default(), &[("HOME", "/h"), (name, value)], Path::new("/")).unwrap_err()
    };
    let complaint = complain("RUNMESH_MAX_RUNNERS", "many");
    assert!(complaint.contains("RUNMESH_MAX_RUNNERS: `many` is not a number from 0 to 1024"), "{complaint}");
    let complaint = complain("RUNMESH_LISTEN", "/ip4/127.0.0.1/tcp/0,localhost:1");
    assert!(complaint.contains("RUNMESH_LISTEN") && complaint.contains("`localhost:1`, which is not"), "{complaint}");
    let complaint = complain("RUNMESH_SOURCES", "svn:/x");
    assert!(complaint.contains("is not github:OWNER"), "{complaint}");
}

#[test]
fn without_any_home_a_data_directory_must_be_named() {
    let complaint = settled(&global(), &RunArguments::default(), &[], Path::new("/")).unwrap_err();
    assert!(complaint.contains("--data-dir"), "{complaint}");
}

#[test]
fn labels_are_added_to_the_hosts_own_or_taken_away() {
    let run = RunArguments { labels: vec!["gpu".into(), "!ubuntu-latest".into()], ..RunArguments::default() };
    let settings = settled(&global(), &run, &[("HOME", "/h")], Path::new("/")).unwrap();
    let own = ["linux", "ubuntu-latest"].map(str::to_owned).into();
    assert_eq!(settings.offered(own), ["gpu", "linux"].map(str::to_owned).into());
}

#[test]
fn values_are_read_strictly() {
    assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
    for bad in ["", "h", "0s", "-1h", "1", "1w", "366d", "99999999999999999999h", "1é"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
    assert_eq!(input("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert!(input("=b").is_err() && input("b").is_err());
    assert!(label("").is_err() && label("a b").is_err());
    assert!(source("git:").is_err() && source("/repo").is_err() && source("github:me/x/y").is_err());
    assert!(multiaddr("").is_err() && multiaddr("127.0.0.1:80").is_err());
}
