use proptest::prelude::*;

use super::*;

fn words(tags: &BTreeSet<Tag>) -> String {
    tags.iter().map(|tag| tag.word()).collect::<Vec<_>>().join(" ")
}

fn dropped(dropped: &[Dropped]) -> String {
    dropped.iter().map(|dropped| format!("{}@{}", dropped.word, dropped.line)).collect::<Vec<_>>().join(" ")
}

/// The tags and the dropped words of a file, by both ways of asking.
#[track_caller]
fn tagged(text: &str, expected_tags: &str, expected_dropped: &str) {
    let workflow = read("w.yml", text.as_bytes());
    assert_eq!(
        (words(&workflow.tags), dropped(&workflow.dropped)),
        (expected_tags.to_owned(), expected_dropped.to_owned()),
        "{text}"
    );
    let tags = tags(text.as_bytes());
    assert_eq!((tags.tags, tags.dropped), (workflow.tags, workflow.dropped), "{text}");
}

#[test]
fn variables_of_the_workflow_and_of_jobs_are_tags() {
    tagged("env:\n  WORKFLOW_TAGS: p2p-only\n", "p2p-only", "");
    tagged("env:\n  P2P_TAGS: 'p2p-eligible, code-generation'\n", "p2p-eligible code-generation", "");
    tagged("env: {P2P_TAGS: \"p2p-only\"}\n", "p2p-only", "");
    tagged("env:\n  \"P2P_TAGS\": p2p-only\n", "p2p-only", "");
    tagged("env:\n  p2p_tags: p2p-only\n", "p2p-only", "");
    tagged("env:\n  WORKFLOW_TAGS: unit-test\n  P2P_TAGS: p2p-only unit-test\n", "p2p-only unit-test", "");
    tagged(
        "jobs:\n  a:\n    env:\n      P2P_TAGS: p2p-only\n  b:\n    env: {WORKFLOW_TAGS: web-scraping}\n",
        "p2p-only web-scraping",
        "",
    );
    tagged("? env\n: ? P2P_TAGS\n  : p2p-only\n", "p2p-only", "");
}

#[test]
fn variables_elsewhere_are_no_tags() {
    tagged("P2P_TAGS: p2p-only\n", "", "");
    tagged("jobs:\n  a:\n    steps:\n      - env:\n          P2P_TAGS: p2p-only\n", "", "");
    tagged(
        "jobs:\n  a:\n    with:\n      P2P_TAGS: p2p-only\n    strategy: {matrix: {env: {P2P_TAGS: [p2p-only]}}}\n",
        "",
        "",
    );
    tagged("jobs:\n  env:\n    P2P_TAGS: p2p-only\n", "", "");
    tagged("env:\n  MY_P2P_TAGS: p2p-only\n  P2P_TAGS_X: p2p-only\n  TAGS: p2p-only\n", "", "");
    tagged("x:\n  env:\n    P2P_TAGS: p2p-only\n", "", "");
}

#[test]
fn comments_are_tags_wherever_they_stand() {
    tagged("# P2P: p2p-only\non: push\n", "p2p-only", "");
    tagged("#P2P:p2p-only\n", "p2p-only", "");
    tagged("on: push # Tags: data-processing, web-scraping\n", "web-scraping data-processing", "");
    tagged("on: push\n      # tags: p2p-only", "p2p-only", "");
    tagged("## p2p: p2p-only\n", "p2p-only", "");
    tagged("on: [push, # P2P: p2p-only\n  release]\n", "p2p-only", "");
    tagged("on: push\n# P2P: p2p-eligible\n# Tags: unit-test\n", "p2p-eligible unit-test", "");
    tagged("--- # P2P: p2p-only\na: b\n", "p2p-only", "");
    tagged("a: |  # P2P: p2p-only\n  text\n", "p2p-only", "");
    tagged("a: |\n  text\n# P2P: p2p-only\n", "p2p-only", "");
    tagged(
        "jobs:\n  a:\n    steps:\n      - run: |\n          text\n        # P2P: p2p-only\n        name: x\n",
        "p2p-only",
        "",
    );
    tagged("# not P2P: p2p-only\n# P2P p2p-only\n# P2P_TAGS: p2p-only\n", "", "");
}

#[test]
fn text_in_scripts_and_values_is_no_tag() {
    for script in [
        "run: |\n          # P2P: p2p-only\n          P2P_TAGS: p2p-only\n",
        "run: >-\n\n          # P2P: p2p-only\n",
        "run: |2\n          # P2P: p2p-only\n",
        "run: |+ # a comment\n          echo\n\n          # Tags: p2p-only\n\n",
        "run: 'echo\n          # P2P: p2p-only'\n",
        "run: \"echo \\\" \\\n          # P2P: p2p-only\"\n",
        "run: 'it''s # P2P: p2p-only'\n",
        "run: echo#P2P: p2p-only\n",
        "run: !!str |\n          # P2P: p2p-only\n",
        "run: &script |\n          # P2P: p2p-only\n",
        "run:\n          |\n          # P2P: p2p-only\n",
        "with: {script: \"# P2P: p2p-only\", other: ' # Tags: p2p-only'}\n",
        "? |\n          # P2P: p2p-only\n        : x\n",
        "run: |\n          é # P2P: p2p-only\n",
        "run: |\n          a\u{85}          # P2P: p2p-only\n",
    ] {
        tagged(&format!("jobs:\n  a:\n    steps:\n      - name: x\n        {script}"), "", "");
        tagged(
            &format!("jobs:\r\n  a:\r\n    steps:\r\n      - name: x\r\n        {}", script.replace('\n', "\r\n")),
            "",
            "",
        );
    }
    // In an item of a list, text need not stand deeper than the item's dash by more than one.
    tagged("- |\n # P2P: p2p-only\n", "", "");
    tagged("- - |\n  # P2P: p2p-only\n", "p2p-only", "");
    tagged("- - |\n   # P2P: p2p-only\n", "", "");
    tagged("a:\n- |\n # P2P: p2p-only\n", "", "");
    // The script ends where the indentation does, also behind lines that are empty or less deep.
    tagged("a:\n  b: |\n\n     x\n    # P2P: p2p-only\n", "p2p-only", "");
    tagged("name: \"a\n# P2P: p2p-only\nb\"\n", "", "");
    tagged("a: plain\n  'quote # P2P: p2p-only\nb: 'x'\n", "p2p-only", "");
}

#[test]
fn words_that_are_no_tags_are_reported_with_their_line() {
    tagged("env:\n  P2P_TAGS: p2p-only, fast, gpu\n", "p2p-only", "fast@2 gpu@2");
    tagged("# P2P: P2P-Only nonsense\n\n# Tags: also,nonsense\n", "p2p-only", "nonsense@1 also@3 nonsense@3");
    tagged("env:\n  P2P_TAGS: |\n    p2p-only\n    one\n    unit-test,two\n", "p2p-only unit-test", "one@4 two@5");
    tagged("env:\n  P2P_TAGS: >\n    one\n    two\njobs: {}\n", "", "one@3 two@4");
    tagged("env:\n  P2P_TAGS: \"p2p-only,\n    one\"\n", "p2p-only", "one@3");
    tagged("env:\n  P2P_TAGS: p2p-only\n    one\n", "p2p-only", "one@3");
    tagged("jobs:\n  a:\n    env:\n      P2P_TAGS: x\n  b:\n    env:\n      P2P_TAGS: x\n", "", "x@4 x@7");
    tagged("env:\n  P2P_TAGS: x, x, x\n", "", "x@2");
    tagged("env:\n  P2P_TAGS: p2p_only p2ponly\n", "", "p2p_only@2 p2ponly@2");
    tagged("# P2P: [p2p-only]\n", "", "[p2p-only]@1");
    tagged("env:\n  P2P_TAGS: 5\n", "", "5@2");
    tagged("env:\n  P2P_TAGS: true\n", "", "true@2");
    tagged("env:\n  P2P_TAGS:\n  WORKFLOW_TAGS: ''\n", "", "");
    tagged("# P2P:\n# Tags: , ,\n", "", "");
    tagged("# P2P: a\u{1b}[31mb\n", "", "a\u{fffd}[31mb@1");
}

#[test]
fn expressions_are_reported_whole() {
    tagged("env:\n  P2P_TAGS: p2p-only, ${{ inputs.tags }}\n", "p2p-only", "${{ inputs.tags }}@2");
    tagged("env:\n  P2P_TAGS: ${{ 'p2p-only' }}\n", "", "${{ 'p2p-only' }}@2");
    tagged("env: ${{ fromJSON('{\"P2P_TAGS\": \"p2p-only\"}') }}\n", "", "");
}

#[test]
fn lists_are_reported_not_read() {
    tagged("env:\n  P2P_TAGS: [p2p-only, x]\n", "", "p2p-only@2 x@2");
    tagged("env:\n  P2P_TAGS:\n    - p2p-only\n    - x\n", "", "p2p-only@3 x@4");
    tagged("env:\n  P2P_TAGS: {p2p-only: true}\n", "", "p2p-only@2");
    let tags = tags(b"env:\n  P2P_TAGS: [p2p-only]\n");
    assert!(tags.warnings.iter().any(|warning| warning.contains("env.P2P_TAGS is a list")), "{:?}", tags.warnings);
}

#[test]
fn case_is_folded_space_trimmed_and_nothing_counted_twice() {
    tagged("env:\n  P2P_TAGS: ' P2P-ONLY ,,p2p-only\tUnit-Test '\n# p2P: unit-TEST\n", "p2p-only unit-test", "");
    let all = Tag::ALL.map(Tag::word).join(" ");
    tagged(&format!("# Tags: {}\n", all.to_uppercase()), &all, "");
}

#[test]
fn byte_order_marks_line_ends_and_aliases_do_not_matter() {
    tagged("\u{feff}# P2P: p2p-only\r\nenv:\r\n  P2P_TAGS: unit-test\r\n", "p2p-only unit-test", "");
    tagged("\u{feff}env:\r\n  P2P_TAGS: |\r\n    unit-test\r\n    x\r\n", "unit-test", "x@4");
    tagged("# P2P: p2p-only\renv:\r  P2P_TAGS: unit-test\r", "p2p-only unit-test", "");
    tagged("x: &tags p2p-only, y\nenv:\n  P2P_TAGS: *tags\n", "p2p-only", "y@3");
    tagged("env: &e\n  P2P_TAGS: p2p-only\njobs:\n  a:\n    env: *e\n", "p2p-only", "");
    tagged("# P2P:\tp2p-only\tx\n", "p2p-only", "x@1");
}

#[test]
fn a_file_that_is_not_yaml_yields_its_comment_tags_and_a_warning() {
    for text in [
        "# P2P: p2p-only\na: b: c\n",
        "# P2P: p2p-only\n[unclosed\n",
        "\"x\n# P2P: p2p-only\n",
        "a: 'x\n\n# P2P: p2p-only\n",
        "# P2P: p2p-only\n\ta: b\n",
    ] {
        tagged(text, "p2p-only", "");
        let workflow = read("w.yml", text.as_bytes());
        assert!(workflow.error.as_ref().is_some_and(|error| error.contains("not YAML")), "{workflow:?}");
        assert_eq!(workflow.warnings, [workflow.error.clone().expect("told")]);
        assert_eq!((workflow.triggers, workflow.jobs.len()), (Triggers::default(), 0));
    }
    let latin: &[u8] = b"# P2P: p2p-only \xe9\nname: caf\xe9\n";
    let workflow = read("w.yml", latin);
    assert_eq!((words(&workflow.tags), dropped(&workflow.dropped)), ("p2p-only".to_owned(), "\u{fffd}@1".to_owned()));
    assert!(workflow.error.is_some_and(|error| error.contains("UTF-8")));
    assert!(read("w.yml", b"# P2P: p2p-only\n- a\n").error.is_some_and(|error| error.contains("no mapping")));
    assert!(read("w.yml", b"").error.is_some());
    assert!(tags(b"env: {P2P_TAGS: p2p-only\n").warnings.iter().any(|warning| warning.contains("not YAML")));
}

#[test]
fn a_file_of_ten_megabytes_costs_nothing() {
    let mut text = b"# P2P: p2p-only\non: push\nx: \"".to_vec();
    text.resize(10 << 20, b'[');
    let workflow = read("big.yml", &text);
    assert_eq!((workflow.name.as_str(), workflow.tags.len()), ("big.yml", 0));
    assert!(workflow.error.is_some_and(|error| error.contains("not read, its tags neither")));
    assert!(tags(&text).warnings.len() == 1 && tags(&text).tags.is_empty());
    // The largest that is read.
    let mut text = b"# P2P: p2p-only\n".to_vec();
    text.resize(MAX_BYTES, b'\n');
    assert_eq!(words(&read("w.yml", &text).tags), "p2p-only");
}

/// Files of the largest size that is read, each meant to cost far more than its length. The harness kills a test that
/// takes minutes; unguarded, several of these take them, or all memory.
#[test]
fn hostile_files_cost_little() {
    let fill = |piece: &str| piece.repeat((MAX_BYTES - 100) / piece.len());
    let job = "{env: {P2P_TAGS: w}, strategy: {matrix: {a: [1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6], b: [1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6]}}}";
    let aliases: String = (0..60_000).map(|n| format!("  j{n}: *j\n")).collect();
    let jobs: String = (0..8_000).map(|n| format!("  j{n}: {job}\n")).collect();
    let words: String = (0..100_000).map(|n| format!("w{n} ")).collect();
    for text in [
        fill("{a: "),
        fill("[? "),
        fill("["),
        fill("- "),
        fill("? "),
        fill("# P2P: x\n"),
        fill("\"\n'\n"),
        fill("a: \"\n"),
        fill("'"),
        format!("env:\n  P2P_TAGS: {words}\n"),
        format!("# P2P: {words}\n"),
        format!("x: &j {job}\njobs:\n{aliases}"),
        format!("jobs:\n{jobs}"),
        format!("jobs: {{a: {{strategy: {{matrix: {{x: [{}]}}}}}}}}", fill("1,")),
        format!(
            "jobs: {{a: {{runs-on: ['${{{{ matrix.x }}}}', {}], strategy: {{matrix: {{x: [1, 2]}}}}}}}}",
            fill("l,")
        ),
        format!("on: {{push: {{branches: [{}]}}}}", fill("'**a',")),
        format!("{}{}", fill("{a: \"}\" # }}\n, b: "), "}".repeat(9)),
    ] {
        let workflow = read("w.yml", &text.as_bytes()[..text.len().min(MAX_BYTES)]);
        assert!(workflow.dropped.len() <= MAX_DROPPED);
        assert!(workflow.jobs.iter().filter_map(|job| job.legs.count()).sum::<usize>() <= 1 << 20);
        workflow.labels();
        workflow.time_limit_s();
        workflow.triggers.push.map(|push| push.matches_ref("refs/heads/main"));
    }
}

#[test]
fn a_whole_workflow_is_read() {
    let text = "name: Build all\non:\n  push: {branches: [main]}\n  workflow_dispatch:\nenv:\n  P2P_TAGS: p2p-eligible\njobs:\n  \
                build:\n    runs-on: Ubuntu-Latest\n    timeout-minutes: 10\n    strategy:\n      matrix: {v: [1, 2]}\n    steps:\n      - uses: actions/checkout@v4\n      - run: make\n  \
                test:\n    needs: build\n    if: ${{ always() }}\n    runs-on: [self-hosted, '${{ inputs.x }}']\n    steps: [{run: x}]\n";
    let workflow = read(".github/workflows/w.yml", text.as_bytes());
    assert_eq!((workflow.name.as_str(), words(&workflow.tags)), ("Build all", "p2p-eligible".to_owned()));
    assert_eq!((workflow.warnings.as_slice(), workflow.error.as_ref()), (&[][..], None));
    assert_eq!(workflow.jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["build", "test"]);
    assert_eq!(workflow.jobs[0].legs.count(), Some(2));
    assert_eq!((workflow.jobs[0].steps, workflow.jobs[0].actions.len()), (2, 1));
    assert_eq!(workflow.labels().labels, ["self-hosted", "ubuntu-latest"].map(str::to_owned).into());
    assert_eq!(workflow.labels().expressions, ["${{ inputs.x }}".to_owned()].into());
    assert_eq!(workflow.time_limit_s(), 10 * 60 + DEFAULT_JOB_TIMEOUT_S);
    assert!(workflow.triggers.push.is_some_and(|push| push.matches_ref("refs/heads/main")));
}

#[test]
fn odd_files_are_read_as_far_as_they_go() {
    assert!(read("w", b"true: push\n").triggers.push.is_some());
    assert_eq!(read("p.yml", b"name: '  '\n").name, "p.yml");
    assert_eq!(read("p.yml", b"name: 5\n").name, "5");
    assert_eq!(read("p.yml", b"name: \"a\\e[1mb\"\n").name, "a\u{fffd}[1mb");
    assert_eq!(read("p.yml", format!("name: {}\n", "é".repeat(300)).as_bytes()).name.chars().count(), 200);
    assert!(read("w", b"name: a\nname: b\n").warnings.iter().any(|warning| warning.contains("`name` stands twice")));
    assert!(read("w", b"on: [push]\njobs: [a]\n").jobs.is_empty());
}

/// Whether YAML's reader takes all that the scanner calls a comment for one, and nothing else.
fn check_comments(text: &str) -> Result<(), TestCaseError> {
    let Ok(value) = serde_yaml::from_str::<serde_yaml::Value>(text) else { return Ok(()) };
    let mut ranges = Vec::new();
    scan::scan(text.as_bytes(), |seen| {
        if let Seen::Comment { text: comment, .. } = seen {
            let start = comment.as_ptr() as usize - text.as_ptr() as usize;
            ranges.push(start..start + comment.len());
        }
    });
    let mut other = text.as_bytes().to_vec();
    ranges.iter().for_each(|range| other[range.clone()].fill(b'x'));
    let other = serde_yaml::from_slice::<serde_yaml::Value>(&other).ok();
    prop_assert_eq!(other.as_ref(), Some(&value), "comments that are none in {:?}: {:?}", text, ranges);
    for (at, _) in text.match_indices('#') {
        if !ranges.iter().any(|range| range.start == at + 1 || range.contains(&at)) {
            // A letter more behind it changes a value, though not a comment.
            let other = format!("{}#z{}", &text[..at], &text[at + 1..]);
            let other = serde_yaml::from_str::<serde_yaml::Value>(&other).ok();
            prop_assert_ne!(other.as_ref(), Some(&value), "a comment at {} not seen in {:?}", at, text);
        }
    }
    Ok(())
}

#[test]
fn comments_that_chance_finds_too_seldom() {
    for text in [
        // An empty line that is deeper than what follows ends a block scalar before it has begun.
        "k: |\n      \n  # c\n",
        "k: |\n  \n   # d\n",
        // A comment's own depth closes no collection.
        "a:\n  b:\n# c\n    |\n  # c\n",
        "a:\n  b:\n# c\n    |\n   # d\n",
        // Plain text goes on over lines, with quotes that quote nothing.
        "a: b\n  'c # c\nd: 'e'\n",
        "a: b\n\n  \"c\n  # c\nd: \"e\"\n",
        "a: b\n'c': 'd # d'\n",
        "[a\n 'b # c\n , c]\n",
        "--- |\n # d\n",
        "--- |1\n # d\n# c\n",
        "a: 'b\n# d\nc' # c\n",
        "a: \"b \\\n# d\nc\" # c\n",
        "a: |\n  b\n\t# d\n",
    ] {
        assert!(serde_yaml::from_str::<serde_yaml::Value>(text).is_ok() || text.contains('\t'), "{text:?} is YAML");
        check_comments(text).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn lines() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "k: |",
        "k: >-",
        "k: |+",
        "k: |2",
        "- |",
        "- - |",
        "- k: |",
        "- x",
        "- k: v",
        "k:",
        "k: v",
        "-",
        "? k",
        "? |",
        ": v",
        "# c",
        "v # c",
        "v #c",
        "v#d",
        "'q # d'",
        "\"q # d\"",
        "k: 'q # d",
        "d # d'",
        "k: \"q \\\" # d",
        "d # d\"",
        "k: [a, # c",
        "b#d, c] # c",
        "[",
        "]",
        "{a: b, # c",
        "}",
        "k: {a: 'x # d'}",
        "k: it's # c",
        "k: a # c",
        "k: a#d",
        "",
        "  ",
        "d # c",
        "k: !!str |",
        "k: &a |",
        "k: &b v # c",
        "k: |  # c",
        "k: | x",
        "--- # c",
        "...",
        "k: 'a' # c",
        "k: \"a\"#c",
        "k : |",
        "'k': |",
        "\"k\" : >",
        "é: |",
        "- &c k: |",
        "[a]: |",
        "k: [a,#c",
        "b: 'c'#c",
        "k: -",
        "k: - |",
        "?",
        "k: ''",
        "- ''",
        "\\",
        "k: \"\\\\\" # c",
    ]);
    let number = prop::sample::select(vec![0_usize, 0, 0, 1, 2, 2, 2, 3, 4, 4, 6]);
    let end = prop::sample::select(vec!["\n", "\n", "\n", "\r\n", "\r", "\u{85}", "\n\n"]);
    let line = (number, piece, 0..1000_u32, end).prop_map(|(indent, piece, n, end)| {
        // Keys that differ, so that fewer files are refused.
        let piece = if piece.starts_with("k:") { format!("k{n}{}", &piece[1..]) } else { piece.to_owned() };
        format!("{}{piece}{end}", " ".repeat(indent))
    });
    prop::collection::vec(line, 1..9).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    #[test]
    fn comments_are_what_the_yaml_library_takes_for_them(text in lines()) {
        check_comments(&text)?;
    }

    #[test]
    fn a_file_is_read_alike_with_and_without_its_scripts(
        text in lines(),
        begin in prop::sample::select(vec!["run: |", "run: >2-", "run: | # c", "name: x\n        run: |+", "run:\n          |"]),
        deeper in 0_usize..12,
        after in prop::sample::select(vec!["", "        uses: docker://x\n", "        run: |\n         b\n", "  b:\n    x: y\n"]),
    ) {
        let body: String = text.lines().map(|line| format!("{}{line}\n", " ".repeat(deeper))).collect();
        let text = format!("jobs:\n  a:\n    steps:\n      - {begin}\n{body}{after}");
        let lexed = lex(text.as_bytes(), &mut Gathered::default());
        let read = |scripts| yaml::parse(text.as_bytes(), lexed.flow_depth, scripts).map(|document| document.root);
        prop_assert_eq!(read(&lexed.scripts), read(&[]), "{}", text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let workflow = read("w.yml", &bytes);
        let tags = tags(&bytes);
        prop_assert_eq!((tags.tags, tags.dropped), (workflow.tags, workflow.dropped));
    }

    #[test]
    fn any_lines_have_an_answer_and_both_ways_agree(text in lines(), tail in "(env:\n  P2P_TAGS: [a-z0-9, #'\"-]{0,20}|# P2P: [ -~]{0,20}|\\PC{0,40})") {
        for text in [format!("{text}{tail}"), format!("{tail}\n{text}")] {
            let workflow = read("w.yml", text.as_bytes());
            let tags = tags(text.as_bytes());
            prop_assert_eq!((&tags.tags, &tags.dropped), (&workflow.tags, &workflow.dropped));
            match read_if_tagged("w.yml", text.as_bytes()) {
                Some(read) => prop_assert_eq!(read, workflow),
                None => prop_assert!(tags.tags.is_empty() && tags.dropped.is_empty()),
            }
        }
    }

    /// What a script holds is never a tag, whatever it is and wherever it stands.
    #[test]
    fn scripts_hold_no_tags(script in "([ #a-z:'\"|>\\-]{0,12}\n){0,6}", style in "[|>][+-]?", depth in 1..5_usize) {
        let indent = " ".repeat(depth);
        let script: String = script.lines().map(|line| format!("{indent}.{line}\n{indent}# P2P: p2p-only\n")).collect();
        let text = format!("run: {style}\n{script}# Tags: unit-test\n");
        let workflow = read("w.yml", text.as_bytes());
        prop_assert_eq!(words(&workflow.tags), "unit-test");
    }

    #[test]
    fn tags_in_any_case_and_between_any_separators_are_read(
        tags in prop::collection::vec(prop::sample::select(Tag::ALL.to_vec()), 1..6), separator in "[ ,]{1,3}", upper in any::<bool>(),
    ) {
        let text = tags.iter().map(|tag| tag.word()).collect::<Vec<_>>().join(&separator);
        let text = if upper { text.to_uppercase() } else { text };
        let expected: BTreeSet<Tag> = tags.into_iter().collect();
        prop_assert_eq!(&super::tags(format!("# Tags: {text}").as_bytes()).tags, &expected);
        prop_assert_eq!(&super::tags(format!("env:\n  P2P_TAGS: {text}").as_bytes()).tags, &expected);
    }
}

/// Whether the typed model of GitHub's schema, where it accepts a file, sees the same triggers and jobs in it. (It is
/// not used to read files: it refuses many that run, and does not bound what aliases expand to.)
fn check_model(text: &str) -> bool {
    use github_actions_models::common::If;
    use github_actions_models::common::expr::LoE;
    use github_actions_models::workflow::job::RunsOn as ModelRunsOn;
    use github_actions_models::workflow::{Job as ModelJob, Workflow as Model, event::OptionalBody};

    let Ok(model) = serde_yaml::from_str::<Model>(text) else { return false };
    let workflow = read("w.yml", text.as_bytes());
    assert_eq!(workflow.error, None);
    assert_eq!(workflow.name, model.name.as_deref().unwrap_or("w.yml").trim());
    let (triggers, events) = (&workflow.triggers, &model.on.events);
    assert_eq!(triggers.push.is_some(), events.push.is_present());
    assert_eq!(triggers.dispatch.is_some(), events.workflow_dispatch.is_present());
    let names = match &events.workflow_dispatch {
        OptionalBody::Body(dispatch) => dispatch.inputs.keys().cloned().collect(),
        _ => Vec::new(),
    };
    assert_eq!(triggers.dispatch.iter().flatten().map(|input| input.name.clone()).collect::<Vec<_>>(), names);
    let lines = if let OptionalBody::Body(lines) = &events.schedule { lines.len() } else { 0 };
    assert_eq!(triggers.schedule.len(), lines);
    let ours = [events.push.is_present(), events.workflow_dispatch.is_present(), events.schedule.is_present()];
    let others = events.count() as usize - ours.iter().filter(|present| **present).count();
    assert_eq!(triggers.others.len(), others, "{:?}", triggers.others);

    assert_eq!(workflow.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), model.jobs.keys().collect::<Vec<_>>());
    for (job, model) in workflow.jobs.iter().zip(model.jobs.values()) {
        match model {
            ModelJob::NormalJob(model) => {
                assert_eq!((&job.name, &job.needs, job.steps), (&model.name, &model.needs, model.steps.len()));
                assert_eq!((job.container, job.services), (model.container.is_some(), !model.services.is_empty()));
                let condition = model.r#if.as_ref().map(|condition| match condition {
                    If::Bool(value) => value.to_string(),
                    If::Expr(text) => text.clone(),
                });
                assert_eq!(job.condition, condition);
                let (group, labels) = match &model.runs_on {
                    LoE::Expr(expression) => (None, vec![expression.as_raw().to_owned()]),
                    LoE::Literal(ModelRunsOn::Target(labels)) => (None, labels.clone()),
                    LoE::Literal(ModelRunsOn::Group { group, labels }) => (group.clone(), labels.clone()),
                };
                assert_eq!(job.runs_on, RunsOn { group, labels });
                let minutes = match &model.timeout_minutes {
                    Some(LoE::Literal(minutes)) => Some(*minutes * 60.0),
                    _ => None,
                };
                assert_eq!(job.timeout_s.map(f64::from), minutes);
                let has_matrix = model.strategy.as_ref().is_some_and(|strategy| strategy.matrix.is_some());
                assert_eq!(job.legs != Legs::Single, has_matrix);
            }
            ModelJob::ReusableWorkflowCallJob(_) => assert!(job.uses.is_some() && job.steps == 0),
        }
    }
    true
}

#[test]
fn the_typed_model_agrees() {
    for text in [
        "on: push\njobs: {}\n",
        "name: ' N '\non: [push, release, workflow_dispatch]\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps: []\n",
        "on:\n  push: {branches: [main], tags-ignore: [x], paths: ['**']}\n  pull_request:\n  schedule: [{cron: '0 0 * * *'}]\njobs: {}\n",
        "on:\n  workflow_dispatch:\n    inputs:\n      a: {type: choice, options: [x, y]}\n      b: {required: true}\njobs: {}\n",
        "on: push\njobs:\n  a:\n    name: A\n    needs: b\n    if: ${{ always() }}\n    runs-on: [self-hosted, X64]\n    timeout-minutes: 7\n    \
         container: alpine\n    services: {db: {image: postgres}}\n    steps: [{uses: actions/checkout@v4}, {run: x}]\n  \
         b:\n    needs: [c]\n    if: false\n    runs-on: {group: g, labels: [l]}\n    steps: [{run: x}]\n  \
         c:\n    runs-on: ${{ matrix.os }}\n    strategy: {matrix: {os: [a, b], include: [{os: c}]}}\n    timeout-minutes: ${{ x }}\n    steps: [{run: x}]\n  \
         d:\n    uses: ./.github/workflows/w.yml\n  \
         e:\n    runs-on: x\n    strategy: {matrix: '${{ fromJSON(x) }}', fail-fast: false}\n    steps: [{run: true}]\n",
    ] {
        assert!(check_model(text), "the model accepts {text}");
    }
    // What it refuses is read all the same.
    let odd = "on: {push: {branches: main}}\njobs: {a: {runs-on: x, steps: [{name: nothing}]}, b: {}}\n";
    assert!(!check_model(odd));
    assert_eq!(read("w.yml", odd.as_bytes()).jobs.len(), 2);
}
