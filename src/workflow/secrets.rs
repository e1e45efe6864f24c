//! Which secrets a workflow cannot do without.

use std::collections::BTreeSet;

/// What GitHub gives every run by itself; no host can be asked to have it.
const TOKEN: &str = "GITHUB_TOKEN";

/// The names, upper case, of the secrets that the file's expressions use. One that an expression has another value for
/// (`secrets.X || 'y'`), or only compares, is not among them: the workflow says itself what it does without. What stands
/// in a comment is none.
pub fn secrets(bytes: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let expressions = text.split("${{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
    let certain =
        expressions.filter(|expression| !["||", "&&", "==", "!="].iter().any(|word| expression.contains(word)));
    certain.flat_map(names).filter(|name| name != TOKEN).collect()
}

/// The names after `secrets.`, or in `secrets['…']`.
fn names(expression: &str) -> Vec<String> {
    const WORD: &str = "secrets";
    let folded = expression.to_ascii_lowercase();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let found = folded.match_indices(WORD).filter_map(|(at, _)| {
        if folded[..at].ends_with(|before: char| is_part(before) || before == '.' || before == '-') {
            return None;
        }
        let rest = expression[at + WORD.len()..].trim_start();
        let rest = match rest.strip_prefix('.') {
            Some(rest) => rest.trim_start(),
            None => rest.strip_prefix('[')?.trim_start().strip_prefix(['\'', '"'])?,
        };
        let name: String = rest.chars().take_while(|letter| is_part(*letter)).collect();
        (!name.is_empty()).then(|| name.to_ascii_uppercase())
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Vec<String> {
        secrets(text.as_bytes()).into_iter().collect()
    }

    #[test]
    fn what_is_used_for_certain_is_listed() {
        assert_eq!(
            of("a: ${{ secrets.Deploy_Key }}\nb: x${{secrets['npm']}}y${{ SECRETS . A }}"),
            ["A", "DEPLOY_KEY", "NPM"]
        );
        assert_eq!(of("run: |\n  echo ${{ format('{0}', secrets.B) }}"), ["B"]);
        for none in [
            "# ${{ secrets.OLD }}",
            "a: ${{ secrets.X || 'y' }}",
            "if: ${{ secrets.X != '' }}",
            "a: ${{ secrets.GITHUB_TOKEN }}",
            "a: ${{ needs.secrets.outputs }} ${{ my_secrets.X }}",
            "a: secrets.X",
            "secrets: inherit",
            "a: ${{ secrets.",
            "a: ${{ toJSON(secrets) }}",
        ] {
            assert_eq!(of(none), [""; 0], "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            secrets(&bytes);
        }

        #[test]
        fn a_name_is_found_wherever_its_expression_stands(name in "[A-Z_][A-Z0-9_]{0,12}", before in "[a-z:é \n]{0,20}") {
            prop_assume!(name != TOKEN);
            let text = format!("x: {before}${{{{ secrets.{name} }}}} more");
            prop_assert_eq!(of(&text), [name]);
        }
    }
}
