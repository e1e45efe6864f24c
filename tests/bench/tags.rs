//! Workflow files through tags and, where there are tags, through triggers: what a discovery does with a new file.

use std::hint::black_box;

use runmesh::workflow;

use super::Outcome;
use super::measure::{rate, side_by_side, source_system};
use super::report::{Goal, Row};

const FILES: usize = 400;
/// Bytes of a file, nearly (DESIGN.md section 10).
const SIZE: usize = 2_000;
/// One file of so many is tagged.
const TAGGED: usize = 20;

pub(crate) fn speed() -> Outcome<Vec<Row>> {
    let files: Vec<String> = (0..FILES).map(file).collect();
    let folder = tempfile::tempdir()?;
    for (n, text) in files.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{n}.yml")), text)?;
    }
    let tagged = files.iter().filter(|text| !workflow::tags(text.as_bytes()).tags.is_empty()).count();
    if tagged != FILES / TAGGED {
        return Err(format!("{tagged} of {FILES} files are tagged, not one in {TAGGED}").into());
    }
    let ours = || {
        Ok(rate(|| {
            for text in &files {
                black_box(workflow::read_if_tagged(".github/workflows/w.yml", black_box(text.as_bytes())));
            }
            files.len()
        }))
    };
    let path = folder.path().to_string_lossy().into_owned();
    let source = || source_system(&["tags", &path]);
    let (ours, rivals) = side_by_side(
        Box::new(ours),
        vec![("regular expressions as the source system's, in Python (tags only)", Box::new(source))],
    )?;
    Ok(Row::beside("tags_files_per_s", "/s", Goal::AtLeast(400_000.0), ours, &rivals))
}

/// A workflow as people write them: a comment or two, a matrix, actions pinned with a comment, scripts.
fn file(n: usize) -> String {
    let mut text = format!(
        "# Checks component {n} before it is merged.\nname: Component {n}\n\non:\n  push:\n    branches: [main, 'release/**']\n  pull_request:\n\n"
    );
    if n.is_multiple_of(TAGGED) {
        text.push_str("env:\n  WORKFLOW_TAGS: p2p-eligible, unit-test\n\n");
    } else {
        text.push_str("env:\n  CARGO_TERM_COLOR: always\n\n");
    }
    text.push_str("jobs:\n");
    for job in 0.. {
        let part = part(n, job);
        if text.len() + part.len() > SIZE {
            break;
        }
        text.push_str(&part);
    }
    text
}

fn part(n: usize, job: usize) -> String {
    let head = format!(
        "  part-{n}-{job}:\n    runs-on: ${{{{ matrix.os }}}}\n    timeout-minutes: 20\n    strategy:\n      matrix:\n        os: [ubuntu-latest, macos-latest]\n        version: ['3.11', '3.12']\n    steps:\n      - uses: actions/checkout@b4ffde65f46336ab88eb53be808477a3936bae11 # v4.1.1\n      - uses: actions/setup-python@v5\n        with:\n          python-version: ${{{{ matrix.version }}}}\n"
    );
    head + "      - name: Test\n        run: |\n          set -euo pipefail\n          python -m pip install --upgrade pip   # the runner's own is old\n          pip install -r requirements.txt\n          pytest --maxfail=1 tests/unit_tests\n"
}
